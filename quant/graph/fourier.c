#include "quant/graph/fourier.h"

#include <inttypes.h>
#include <string.h>

#include "quant/graph/functions.h"

#define TWO_PI 0x1.921fb54442d18p+2

static bool halves(uint64_t n)
{
    return (n & (n - 1)) == 0;
}

int fourier_begin(struct op_call *c, uint64_t n, bool inverse, struct fourier *ret)
{
    struct fourier f = {.n = n, .inverse = inverse};
    if (n < 1 || n > FOURIER_MAX || (n > FOURIER_SLOW_MAX && !halves(n)))
        return err_new(c->err, QD_E_LIMIT, "a transform of %" PRIu64 " points: at most %d, or %d of a power of two", n,
                       FOURIER_SLOW_MAX, FOURIER_MAX);
    int r = memory_take(c->memory, 6 * n * sizeof(double), &f.block, c->err);
    if (r < 0)
        return r;
    f.cosines = f.block;
    f.sines = f.cosines + n;
    f.re = f.sines + n;
    f.im = f.re + n;
    f.spare = f.im + n;
    for (uint64_t k = 0; k < n; k++) {
        const double angle = TWO_PI * ((double)k / (double)n);
        f.cosines[k] = fn_cos_d(angle);
        f.sines[k] = inverse ? fn_sin_d(angle) : -fn_sin_d(angle);
    }
    *ret = f;
    return 0;
}

static void run_slow(const struct fourier *f)
{
    double *re = f->spare, *im = f->spare + f->n;
    for (uint64_t k = 0; k < f->n; k++) {
        re[k] = im[k] = 0.0;
        for (uint64_t i = 0, at = 0; i < f->n; i++, at = at + k < f->n ? at + k : at + k - f->n) {
            re[k] += f->re[i] * f->cosines[at] - f->im[i] * f->sines[at];
            im[k] += f->re[i] * f->sines[at] + f->im[i] * f->cosines[at];
        }
    }
    memcpy(f->re, re, f->n * sizeof *re);
    memcpy(f->im, im, f->n * sizeof *im);
}

/* One pass of Stockham's transform: @n points in runs of @s, from x to y. */
static void pass(const struct fourier *f, uint64_t n, uint64_t s, const double *xr, const double *xi, double *yr,
                 double *yi)
{
    const uint64_t half = n / 2;
    for (uint64_t p = 0; p < half; p++) {
        const double c = f->cosines[p * s], d = f->sines[p * s];
        for (uint64_t q = 0; q < s; q++) {
            const uint64_t a = q + s * p, b = a + s * half, to = q + s * 2 * p;
            const double dr = xr[a] - xr[b], di = xi[a] - xi[b];
            yr[to] = xr[a] + xr[b];
            yi[to] = xi[a] + xi[b];
            yr[to + s] = dr * c - di * d;
            yi[to + s] = dr * d + di * c;
        }
    }
}

static void run_fast(const struct fourier *f)
{
    double *x = f->re, *xi = f->im, *y = f->spare, *yi = f->spare + f->n;
    for (uint64_t n = f->n, s = 1; n > 1; n /= 2, s *= 2) {
        pass(f, n, s, x, xi, y, yi);
        double *const t = x, *const ti = xi;
        x = y;
        xi = yi;
        y = t;
        yi = ti;
    }
    if (x == f->re)
        return;
    memcpy(f->re, x, f->n * sizeof *x);
    memcpy(f->im, xi, f->n * sizeof *xi);
}

void fourier_run(const struct fourier *f)
{
    if (halves(f->n))
        run_fast(f);
    else
        run_slow(f);
    for (uint64_t k = 0; k < f->n && f->inverse; k++) {
        f->re[k] /= (double)f->n;
        f->im[k] /= (double)f->n;
    }
}
