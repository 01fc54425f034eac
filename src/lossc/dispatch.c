/* What this machine can run, the names of the losses, OpenMP's behaviour at fork and what its threads inherit. The only file that knows CPUs
 * and operating systems. */
#include "lossc.h"

#if defined _OPENMP && !defined _WIN32
#include <omp.h>
#include <pthread.h>
#endif

#define ELEM(name, inputs, params) #name,
const char *const lf_loss_names[] = {
#include "losses.def"
};
#undef ELEM
#define ELEM(name, inputs, params) inputs,
const int lf_loss_inputs[] = {
#include "losses.def"
};
#undef ELEM
#define ELEM(name, inputs, params) params,
const int lf_loss_params[] = {
#include "losses.def"
};
#undef ELEM
const int lf_loss_count = sizeof lf_loss_names / sizeof *lf_loss_names;

#define KERNELS(isa_)                                                                                                                                \
    void lf_elem_prepare_##isa_(LfElemJob *);                                                                                                        \
    void lf_elem_block_##isa_(const LfElemJob *, ptrdiff_t);                                                                                         \
    void lf_elem_strip_##isa_(const LfElemJob *, ptrdiff_t);                                                                                         \
    void lf_elem_fold_##isa_(const LfElemJob *, ptrdiff_t);                                                                                          \
    void lf_row_block_##isa_(const LfRowJob *, ptrdiff_t);                                                                                           \
    void lf_row_piece_##isa_(const LfRowJob *, ptrdiff_t);                                                                                           \
    void lf_label_block_##isa_(const LfRowJob *, ptrdiff_t);                                                                                         \
    void lf_ctc_rows_##isa_(const LfCtcJob *, ptrdiff_t, char *);                                                                                    \
    void lf_ctc_half_##isa_(const LfCtcJob *, ptrdiff_t, int, char *);                                                                               \
    void lf_ctc_loss_##isa_(const LfCtcJob *, ptrdiff_t, char *);                                                                                    \
    void lf_ctc_rest_##isa_(const LfCtcJob *, ptrdiff_t, int, char *);                                                                               \
    int lf_ctc_align_near_##isa_(const LfCtcJob *, ptrdiff_t, char *);                                                                               \
    void lf_ctc_align_half_##isa_(const LfCtcJob *, ptrdiff_t, int, char *);                                                                         \
    void lf_ctc_align_rest_##isa_(const LfCtcJob *, ptrdiff_t, int, char *);                                                                         \
    void lf_ctc_greedy_##isa_(const LfCtcDecode *, ptrdiff_t, char *);                                                                               \
    void lf_ctc_beam_##isa_(const LfCtcDecode *, ptrdiff_t, char *);                                                                                 \
    void lf_rnnt_rows_##isa_(const LfRnntJob *, ptrdiff_t, char *);                                                                                  \
    void lf_rnnt_lattice_##isa_(const LfRnntJob *, ptrdiff_t);                                                                                       \
    void lf_rnnt_gradient_##isa_(const LfRnntJob *, ptrdiff_t, char *);                                                                              \
    void lf_vector_block_##isa_(const LfVectorJob *, ptrdiff_t);                                                                                     \
    void lf_tile_block_##isa_(const LfTileJob *, ptrdiff_t);                                                                                         \
    void lf_tile_grad_##isa_(const LfTileJob *, ptrdiff_t);                                                                                          \
    void lf_load_tile_f32_##isa_(float *restrict, ptrdiff_t, const char *, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);                         \
    void lf_store_tile_f32_##isa_(char *, int, ptrdiff_t, ptrdiff_t, const float *restrict, ptrdiff_t, ptrdiff_t, ptrdiff_t, int);                   \
    void lf_load_tile_f64_##isa_(double *restrict, ptrdiff_t, const char *, int, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t);                        \
    void lf_store_tile_f64_##isa_(char *, int, ptrdiff_t, ptrdiff_t, const double *restrict, ptrdiff_t, ptrdiff_t, ptrdiff_t, int);                  \
    static const LfKernels isa_ = {.isa = #isa_,                                                                                                     \
                                   .elem_prepare = lf_elem_prepare_##isa_,                                                                           \
                                   .elem_block = lf_elem_block_##isa_,                                                                               \
                                   .elem_strip = lf_elem_strip_##isa_,                                                                               \
                                   .elem_fold = lf_elem_fold_##isa_,                                                                                 \
                                   .row_block = lf_row_block_##isa_,                                                                                 \
                                   .row_piece = lf_row_piece_##isa_,                                                                                 \
                                   .label_block = lf_label_block_##isa_,                                                                             \
                                   .ctc_rows = lf_ctc_rows_##isa_,                                                                                   \
                                   .ctc_half = lf_ctc_half_##isa_,                                                                                   \
                                   .ctc_loss = lf_ctc_loss_##isa_,                                                                                   \
                                   .ctc_rest = lf_ctc_rest_##isa_,                                                                                   \
                                   .ctc_align_near = lf_ctc_align_near_##isa_,                                                                       \
                                   .ctc_align_half = lf_ctc_align_half_##isa_,                                                                       \
                                   .ctc_greedy = lf_ctc_greedy_##isa_,                                                                               \
                                   .ctc_beam = lf_ctc_beam_##isa_,                                                                                   \
                                   .rnnt_rows = lf_rnnt_rows_##isa_,                                                                                 \
                                   .rnnt_lattice = lf_rnnt_lattice_##isa_,                                                                           \
                                   .rnnt_gradient = lf_rnnt_gradient_##isa_,                                                                         \
                                   .ctc_align_rest = lf_ctc_align_rest_##isa_,                                                                       \
                                   .vector_block = lf_vector_block_##isa_,                                                                           \
                                   .tile_block = lf_tile_block_##isa_,                                                                               \
                                   .tile_grad = lf_tile_grad_##isa_,                                                                                 \
                                   .load_tile_f32 = lf_load_tile_f32_##isa_,                                                                         \
                                   .load_tile_f64 = lf_load_tile_f64_##isa_,                                                                         \
                                   .store_tile_f32 = lf_store_tile_f32_##isa_,                                                                       \
                                   .store_tile_f64 = lf_store_tile_f64_##isa_};

KERNELS(base)
#if defined __x86_64__ && !defined LF_NO_AVX2
KERNELS(avx2)
#endif
#if defined __x86_64__ && !defined LF_NO_AVX512
KERNELS(avx512)
#endif

#if defined __x86_64__
static inline int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }

static inline int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

const LfKernels *lf_isa(int i)
{
    const LfKernels *table[3] = {&base};
    int n = 1;
#if defined __x86_64__ && !defined LF_NO_AVX2
    if (has_avx2())
        table[n++] = &avx2;
#endif
#if defined __x86_64__ && !defined LF_NO_AVX512
    if (has_avx512())
        table[n++] = &avx512;
#endif
    return i < n ? table[i] : NULL;
}

LfBf16Panel *lf_bf16(const LfKernels *k)
{
#if defined __x86_64__ && !defined LF_NO_AVX512 && !defined LF_NO_BF16
    extern LfBf16Panel lf_bf16_panel;
    if (k == &avx512 && __builtin_cpu_supports("avx512bf16"))
        return lf_bf16_panel;
#endif
    return NULL;
}

int lf_isa_count(void)
{
    int n = 0;
    while (n < 3 && lf_isa(n))
        n++;
    return n;
}

/* libgomp's pool does not survive fork: a child of the thread that owns one waits for workers that do not exist. Released just before the fork
 * it is built anew in parent and child. Where the runtime cannot release it (before OpenMP 5.0), the child works with one thread. */
static int serial;

int lf_fork_serial(void) { return serial; }

#if defined _OPENMP && !defined _WIN32
extern int omp_pause_resource_all(omp_pause_resource_t) __attribute__((weak));

static void release_threads(void)
{
    if (omp_pause_resource_all)
        omp_pause_resource_all(omp_pause_soft);
}

static void after_fork_in_child(void)
{
    if (!omp_pause_resource_all)
        serial = 1;
}

void lf_fork_init(void) { pthread_atfork(release_threads, NULL, after_fork_in_child); }

/* The modes of floating-point arithmetic: how it rounds, and whether subnormal numbers are flushed. */
static inline unsigned long modes(void)
{
    unsigned long all = 0;
#if defined __x86_64__
    all = __builtin_ia32_stmxcsr() & ~0x3fu; /* but the exceptions so far */
#elif defined __aarch64__
    __asm__ volatile("mrs %0, fpcr" : "=r"(all));
#endif
    return all;
}

/* Threads keep the modes that the one which made them had then. Where the caller's are others now, its threads are made anew, with its own. */
void lf_share_modes(void)
{
    static _Thread_local unsigned long made = ~0ul;
    const unsigned long now = modes();
    if (made != now)
        release_threads();
    made = now;
}
#else
void lf_fork_init(void) {}
void lf_share_modes(void) {}
#endif
