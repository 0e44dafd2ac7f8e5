/*
 * Plans whose bytes only change places: a portable file to a packed one, and back (docs/formats/packed.md). Pure, as
 * plan_build is; plan_run does the work.
 */
#ifndef QUANTD_QUANT_PLAN_PACK_H
#define QUANTD_QUANT_PLAN_PACK_H

#include "quant/plan.h"
#include "quant/portable_table.h"

/*
 * @m packed in @layout, which is not portable. @portable: the table of the artifact that @m is, outlives the plan; what
 * the run says of tensors is what stands there. NULL: none. A model that is packed or is no GGUF: QD_E_UNSUPPORTED; a
 * group of rows longer than a shard: QD_E_LIMIT.
 */
int plan_pack(const struct model *m, enum qd_layout layout, const struct portable_table *portable, struct plan **ret,
              struct qd_error *err);

/*
 * The portable file that the packed @m was made from: byte for byte, where that was one GGUF 3 file without slack, as
 * quantd and llama.cpp write. A model that is not packed: QD_E_UNSUPPORTED.
 */
int plan_unpack(const struct model *m, struct plan **ret, struct qd_error *err);

#endif
