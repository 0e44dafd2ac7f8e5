/*
 * quantd/layout.h - packed layouts by name
 *
 * A packed layout is the same weights in the order that an instruction set reads them: groups of rows, interleaved.
 * It has as many bytes as the portable one, and unpacking gives those bytes back. docs/formats/packed.md.
 */
#ifndef QUANTD_LAYOUT_H
#define QUANTD_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include <quantd/dtype.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Values are quantd's own and part of the ABI. */
enum qd_layout {
#define QD_LAYOUT(name, NAME, rows, run, panel, columns) QD_LAYOUT_##NAME,
#include <quantd/layouts.def>
#undef QD_LAYOUT
    QD_N_LAYOUTS
};

struct qd_layout_info {
    const char *name;
    uint32_t rows;  /* of a group */
    uint32_t run;   /* bytes of one row's codes that lie together; 0: portable */
    uint32_t panel; /* bytes of a row's codes whose blocks share planes; 0: portable */
};

#if defined(__GNUC__)
#pragma GCC visibility push(default) /* exported by libquantd */
#endif

/* The facts of a layout; NULL where @layout is none. Static storage. */
const struct qd_layout_info *qd_layout_info(enum qd_layout layout);

/* The layout of a name; -1 where there is none. */
int qd_layout_by_name(const char *name);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif
#endif
