from libc.stdint cimport int32_t, int64_t


cdef extern from "lossc.h" nogil:
    enum:
        LF_F16, LF_BF16, LF_F32, LF_F64, LF_I8, LF_I16, LF_I32, LF_I64, LF_U8, LF_U16, LF_U32, LF_U64, LF_BOOL
        LF_MAXDIM, LF_BF16_PANEL, LF_BF16_MORE, LF_BF16_DOWN, LF_INPUTS, LF_PARAMS, LF_W, LF_SMALL_C
        LF_CHUNK, LF_ELEM_BLOCK, LF_ELEM_SHARES, LF_ELEM_PERIOD, LF_PARTS, LF_ELEM_PIECE, LF_STRIP, LF_STRIP_ROWS
        LF_LOGSUMEXP, LF_SOFTMAX, LF_LOG_SOFTMAX, LF_CE_INDEX, LF_CE_PROB, LF_NLL

    ctypedef struct LfArray:
        char *data
        int dtype
        Py_ssize_t stride[64]

    ctypedef struct LfElemJob:
        int loss, wide, ndim
        Py_ssize_t shape[64]
        Py_ssize_t size, block, period, runs, blocks
        int tall
        Py_ssize_t strip
        int near[3]
        LfArray[3] in_ "in"
        LfArray weight, where, upstream, out
        LfArray grad[4]
        LfArray hess
        double param[4]
        double scale
        int count_mass
        double weight_offset
        Py_ssize_t fold, inner, fold_rows
        double *folded
        int fold_arg
        int stream
        double *sum
        double *mass
        Py_ssize_t *bad

    Py_ssize_t LF_PIECE

    ctypedef struct LfRowPiece:
        pass

    ctypedef struct LfRowJob:
        int op, wide, ndim
        Py_ssize_t shape[64]
        Py_ssize_t n
        int cdim
        Py_ssize_t cshape[64]
        Py_ssize_t c, rows
        LfArray x, t, out, gx, gt
        Py_ssize_t xc[64]
        Py_ssize_t tc[64]
        Py_ssize_t oc[64]
        Py_ssize_t gxc[64]
        Py_ssize_t gtc[64]
        LfArray where, upstream
        const void *weight
        int64_t ignore_index
        double smoothing, scale, gamma
        int stream
        double *sum
        double *mass
        Py_ssize_t share, span
        double *gw
        double *gw_mass
        Py_ssize_t *bad
        LfRowPiece *piece
        int cut

    ctypedef struct LfCtcJob:
        const char *x
        char *g
        int x_dtype, g_dtype
        Py_ssize_t x_t, x_n, x_c, g_t, g_n, g_c
        Py_ssize_t steps, N, C, blank
        int from_logits, states, stream, whole
        const int64_t *frames
        const int64_t *lengths
        const double *scale
        double *loss
        int32_t *labels
        int32_t *path
        double *score
        int small
        Py_ssize_t row_tasks
        size_t plan_bytes, lattice_bytes, row_bytes

    ctypedef struct LfCtcDecode:
        const char *x
        int x_dtype
        Py_ssize_t x_t, x_n, x_c, steps, N, C, blank
        int from_logits
        Py_ssize_t width, top
        const int64_t *frames
        int32_t *labels
        int64_t *lengths
        double *score

    ctypedef struct LfRnntJob:
        LfCtcJob row
        char *g
        Py_ssize_t x_u, g_u, steps, N, width
        const int64_t *frames
        const int64_t *lengths
        double clamp
        double *blank_lp
        double *label_lp
        double *beta
        double *alpha
        double *top
        double *total
        double *loss

    void *lf_ctc_borrow(size_t)
    void lf_ctc_return(void *)
    size_t lf_ctc_row_bytes(Py_ssize_t C)
    size_t lf_ctc_decode_bytes(const LfCtcDecode *)
    int lf_ctc_measure(LfCtcJob *)
    void lf_ctc_fuse(LfCtcJob *, int)
    Py_ssize_t lf_ctc_slab(const LfCtcJob *, Py_ssize_t)
    int lf_ctc_labels(const LfCtcJob *, const char *, int, const Py_ssize_t *, Py_ssize_t, Py_ssize_t *, Py_ssize_t *, int64_t *)
    void lf_ctc_plan(LfCtcJob *, char *)

    enum:
        LF_VECTORS
        LF_MULTI_MARGIN, LF_MULTILABEL_MARGIN, LF_FOCAL_HESSIAN, LF_CE_HESSIAN, LF_COSINE, LF_TRIPLET, LF_DICE, LF_WASSERSTEIN

    ctypedef struct LfVectorJob:
        int op, wide, ndim
        Py_ssize_t shape[64]
        Py_ssize_t n
        int cdim
        Py_ssize_t cshape[64]
        Py_ssize_t c, rows
        LfArray[3] in_ "in"
        LfArray grad[3]
        Py_ssize_t inc[3][64]
        Py_ssize_t gradc[3][64]
        LfArray label
        Py_ssize_t labelc
        LfArray out, where, upstream
        const double *weight
        int ignores, labels_only
        int64_t ignore_index
        double param[4]
        double scale
        double *sum
        double *mass
        Py_ssize_t share
        double *gw
        double *gw_mass
        Py_ssize_t *bad

    ctypedef struct LfTileJob:
        char *tile
        int wide, smoothed
        Py_ssize_t columns, first
        const void *bias
        const double *weight
        const int64_t *label
        const void *target
        double mix, rest
        double *m
        double *s
        double *xt
        double *dot
        double *mass
        const double *kmass
        const double *kown
        const double *keven

    ctypedef struct LfKernels:
        const char *isa
        void (*elem_prepare)(LfElemJob *) noexcept nogil
        void (*elem_block)(const LfElemJob *, Py_ssize_t) noexcept nogil
        void (*elem_strip)(const LfElemJob *, Py_ssize_t) noexcept nogil
        void (*elem_fold)(const LfElemJob *, Py_ssize_t) noexcept nogil
        void (*row_block)(const LfRowJob *, Py_ssize_t) noexcept nogil
        void (*row_piece)(const LfRowJob *, Py_ssize_t) noexcept nogil
        void (*label_block)(const LfRowJob *, Py_ssize_t) noexcept nogil
        void (*ctc_rows)(const LfCtcJob *, Py_ssize_t, char *) noexcept nogil
        void (*ctc_half)(const LfCtcJob *, Py_ssize_t, int, char *) noexcept nogil
        void (*ctc_loss)(const LfCtcJob *, Py_ssize_t, char *) noexcept nogil
        void (*ctc_rest)(const LfCtcJob *, Py_ssize_t, int, char *) noexcept nogil
        int (*ctc_align_near)(const LfCtcJob *, Py_ssize_t, char *) noexcept nogil
        void (*ctc_align_half)(const LfCtcJob *, Py_ssize_t, int, char *) noexcept nogil
        void (*ctc_align_rest)(const LfCtcJob *, Py_ssize_t, int, char *) noexcept nogil
        void (*ctc_greedy)(const LfCtcDecode *, Py_ssize_t, char *) noexcept nogil
        void (*ctc_beam)(const LfCtcDecode *, Py_ssize_t, char *) noexcept nogil
        void (*rnnt_rows)(const LfRnntJob *, Py_ssize_t, char *) noexcept nogil
        void (*rnnt_lattice)(const LfRnntJob *, Py_ssize_t) noexcept nogil
        void (*rnnt_gradient)(const LfRnntJob *, Py_ssize_t, char *) noexcept nogil
        void (*vector_block)(const LfVectorJob *, Py_ssize_t) noexcept nogil
        void (*tile_block)(const LfTileJob *, Py_ssize_t) noexcept nogil
        void (*tile_grad)(const LfTileJob *, Py_ssize_t) noexcept nogil
        void (*load_tile_f32)(float *, Py_ssize_t, const char *, int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*load_tile_f64)(double *, Py_ssize_t, const char *, int, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*store_tile_f32)(char *, int, Py_ssize_t, Py_ssize_t, const float *, Py_ssize_t, Py_ssize_t, Py_ssize_t, int) noexcept nogil
        void (*store_tile_f64)(char *, int, Py_ssize_t, Py_ssize_t, const double *, Py_ssize_t, Py_ssize_t, Py_ssize_t, int) noexcept nogil

    const char *const *lf_loss_names
    const int lf_loss_count
    const int *lf_loss_inputs
    const int *lf_loss_params

    int lf_isa_count()
    const LfKernels *lf_isa(int i)
    ctypedef void LfBf16Panel(float *, Py_ssize_t, const char *, Py_ssize_t, const char *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                              Py_ssize_t, int) noexcept nogil
    LfBf16Panel *lf_bf16(const LfKernels *)
    void lf_fork_init()
    int lf_fork_serial()
    void lf_share_modes()
