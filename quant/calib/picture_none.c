#include "quant/calib/picture.h"

int picture_read(struct source *s, struct picture *ret, struct qd_error *err)
{
    (void)s, (void)ret;
    return err_new(err, QD_E_UNSUPPORTED, "pictures cannot be read: this quantd was built without libpng or libjpeg");
}

void picture_clear(struct picture *p)
{
    (void)p;
}
