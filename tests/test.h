/* The only includer of cmocka: it owns macro names (fail, skip, mock) that we keep out of the rest. */
#ifndef QUANTD_TESTS_TEST_H
#define QUANTD_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
