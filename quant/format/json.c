#include "quant/format/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/limits.h"

enum { NUMBER_BYTES_MAX = 64 }; /* no number of a model file needs more */

void json_clear(struct json *j)
{
    buffer_clear(&j->text);
}

static bool broken(struct json *j, const char *why)
{
    (void)stream_fail(j->st, QD_E_CORRUPT, j->st->at, "JSON: %s", why); /* false says it */
    return false;
}

static void take(struct json *j)
{
    j->st->at++; /* stream_peek has seen it */
}

static int peek_after_space(struct json *j)
{
    int c = stream_peek(j->st);
    while (c == ' ' || c == '\n' || c == '\r' || c == '\t') {
        take(j);
        c = stream_peek(j->st);
    }
    return c;
}

enum json_kind json_peek(struct json *j)
{
    static const enum json_kind kinds[256] = {
        ['{'] = JSON_OBJECT, ['['] = JSON_ARRAY,  ['"'] = JSON_TEXT,   ['t'] = JSON_BOOL,   ['f'] = JSON_BOOL,
        ['n'] = JSON_NULL,   ['-'] = JSON_NUMBER, ['0'] = JSON_NUMBER, ['1'] = JSON_NUMBER, ['2'] = JSON_NUMBER,
        ['3'] = JSON_NUMBER, ['4'] = JSON_NUMBER, ['5'] = JSON_NUMBER, ['6'] = JSON_NUMBER, ['7'] = JSON_NUMBER,
        ['8'] = JSON_NUMBER, ['9'] = JSON_NUMBER,
    };
    int c = peek_after_space(j);
    return c < 0 ? JSON_NONE : kinds[c];
}

static bool expect(struct json *j, char wanted, const char *why)
{
    if (peek_after_space(j) != (unsigned char)wanted)
        return broken(j, why);
    take(j);
    return true;
}

bool json_begin(struct json *j, char open)
{
    if (!expect(j, open, open == '{' ? "an object {...} is expected" : "an array [...] is expected"))
        return false;
    if (++j->depth >= LIMIT_JSON_DEPTH) {
        (void)stream_fail(j->st, QD_E_LIMIT, j->st->at, "JSON nested deeper than %d levels",
                          LIMIT_JSON_DEPTH); /* false says it */
        return false;
    }
    j->started &= ~(UINT64_C(1) << j->depth);
    return true;
}

/* To the next item of a container that @close ends; takes the comma or the end. */
static bool next_item(struct json *j, char close)
{
    int c = peek_after_space(j);
    uint64_t bit = UINT64_C(1) << j->depth;
    if (c == (unsigned char)close) {
        take(j);
        j->depth--;
        return false;
    }
    if (!(j->started & bit)) {
        j->started |= bit;
        return !j->st->result;
    }
    return expect(j, ',', close == '}' ? "',' or '}' is expected" : "',' or ']' is expected");
}

bool json_item(struct json *j)
{
    return next_item(j, ']');
}

bool json_member(struct json *j)
{
    return next_item(j, '}') && json_text(j) && expect(j, ':', "':' is expected after a key");
}

const char *json_key(const struct json *j)
{
    return (const char *)j->text.data;
}

static bool keep(struct json *j, uint8_t byte)
{
    if (j->text.n > LIMIT_JSON_TEXT_BYTES) {
        (void)stream_fail(j->st, QD_E_LIMIT, j->st->at, "a JSON text of more than %d bytes",
                          LIMIT_JSON_TEXT_BYTES); /* false says it */
        return false;
    }
    buffer_put_u8(&j->text, byte);
    if (j->text.failed)
        (void)stream_fail_budget(j->st); /* false says it */
    return !j->text.failed;
}

static bool keep_code_point(struct json *j, uint32_t c)
{
    if (c < 0x80)
        return keep(j, (uint8_t)c);
    if (c < 0x800)
        return keep(j, (uint8_t)(0xc0 | c >> 6)) && keep(j, (uint8_t)(0x80 | (c & 0x3f)));
    if (c < 0x10000)
        return keep(j, (uint8_t)(0xe0 | c >> 12)) && keep(j, (uint8_t)(0x80 | (c >> 6 & 0x3f))) &&
               keep(j, (uint8_t)(0x80 | (c & 0x3f)));
    return keep(j, (uint8_t)(0xf0 | c >> 18)) && keep(j, (uint8_t)(0x80 | (c >> 12 & 0x3f))) &&
           keep(j, (uint8_t)(0x80 | (c >> 6 & 0x3f))) && keep(j, (uint8_t)(0x80 | (c & 0x3f)));
}

static bool hex4(struct json *j, uint32_t *ret)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        int c = stream_peek(j->st);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return broken(j, "four hex digits are expected after \\u");
        take(j);
        v = v << 4 | (uint32_t)digit;
    }
    *ret = v;
    return true;
}

/* After "\u": one code unit, or the two of a surrogate pair. */
static bool unicode_escape(struct json *j)
{
    uint32_t high, low;
    if (!hex4(j, &high))
        return false;
    if (high < 0xd800 || high > 0xdfff)
        return keep_code_point(j, high);
    if (high > 0xdbff || stream_peek(j->st) != '\\')
        return broken(j, "half of a surrogate pair");
    take(j);
    if (stream_peek(j->st) != 'u')
        return broken(j, "half of a surrogate pair");
    take(j);
    if (!hex4(j, &low))
        return false;
    if (low < 0xdc00 || low > 0xdfff)
        return broken(j, "half of a surrogate pair");
    return keep_code_point(j, 0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00)));
}

static bool escape(struct json *j)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int c = stream_peek(j->st);
    if (c < 0)
        return broken(j, "the text does not end");
    take(j);
    if (c == 'u')
        return unicode_escape(j);
    const char *at = c ? strchr(from, c) : NULL;
    return at ? keep(j, (uint8_t)to[at - from]) : broken(j, "an unknown escape");
}

/* A multi-byte character whose first byte is @lead: shortest form, no surrogate, at most U+10FFFF (RFC 3629). */
static bool utf8_rest(struct json *j, uint8_t lead)
{
    int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4)
        return broken(j, "no UTF-8");
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (!keep(j, lead))
        return false;
    for (int i = 0; i < more; i++, low = 0x80, high = 0xbf) {
        int c = stream_peek(j->st);
        if (c < low || c > high)
            return broken(j, "no UTF-8");
        take(j);
        if (!keep(j, (uint8_t)c))
            return false;
    }
    return true;
}

const char *json_text(struct json *j)
{
    if (!expect(j, '"', "a text \"...\" is expected"))
        return NULL;
    j->text.n = 0;
    for (;;) {
        int c = stream_peek(j->st);
        bool ok = true;
        if (c < 0x20)
            ok = broken(j, c < 0 ? "the text does not end" : "a control character in a text");
        else
            take(j);
        if (!ok || c == '"')
            break;
        ok = c == '\\' ? escape(j) : c < 0x80 ? keep(j, (uint8_t)c) : utf8_rest(j, (uint8_t)c);
        if (!ok)
            break;
    }
    j->n_text = j->text.n;
    if (j->st->result || !keep(j, 0))
        return NULL;
    return (const char *)j->text.data;
}

/* Takes digits into @dst; false where there is none, or too many. */
static bool digits(struct json *j, char *dst, size_t *n)
{
    size_t before = *n;
    for (int c; (c = stream_peek(j->st)) >= '0' && c <= '9'; take(j)) {
        if (*n >= NUMBER_BYTES_MAX)
            return broken(j, "a number of too many digits");
        dst[(*n)++] = (char)c;
    }
    return *n > before || broken(j, "a digit is expected");
}

/* Takes @c into @dst when it is next. */
static bool sign_or_point(struct json *j, char c, char *dst, size_t *n)
{
    if (stream_peek(j->st) != c)
        return false;
    take(j);
    dst[(*n)++] = c;
    return true;
}

/* The number's text by the grammar, [NUMBER_BYTES_MAX + 8]. */
static bool number_text(struct json *j, char *dst, bool *ret_integer)
{
    size_t n = 0;
    if (json_peek(j) != JSON_NUMBER)
        return broken(j, "a number is expected");
    (void)sign_or_point(j, '-', dst, &n); /* may be there */
    size_t first = n;
    if (!digits(j, dst, &n))
        return false;
    if (dst[first] == '0' && n > first + 1)
        return broken(j, "a number with a leading 0");
    *ret_integer = first == 0;
    if (sign_or_point(j, '.', dst, &n)) {
        *ret_integer = false;
        if (!digits(j, dst, &n))
            return false;
    }
    if (sign_or_point(j, 'e', dst, &n) || sign_or_point(j, 'E', dst, &n)) {
        *ret_integer = false;
        if (!sign_or_point(j, '+', dst, &n))
            (void)sign_or_point(j, '-', dst, &n); /* may be there */
        if (!digits(j, dst, &n))
            return false;
    }
    dst[n] = '\0';
    return !j->st->result;
}

bool json_u64(struct json *j, uint64_t *ret)
{
    char text[NUMBER_BYTES_MAX + 8];
    bool integer;
    if (!number_text(j, text, &integer))
        return false;
    if (!integer)
        return broken(j, "a whole number, not negative, is expected");
    uint64_t v = 0;
    for (const char *c = text; *c; c++)
        if (__builtin_mul_overflow(v, UINT64_C(10), &v) || __builtin_add_overflow(v, (uint64_t)(*c - '0'), &v))
            return broken(j, "a whole number beyond 2^64");
    *ret = v;
    return true;
}

bool json_number(struct json *j, double *ret)
{
    char text[NUMBER_BYTES_MAX + 8];
    bool integer;
    if (!number_text(j, text, &integer))
        return false;
    double v = strtod(text, NULL);
    if (!isfinite(v))
        return broken(j, "a number beyond what a double holds");
    *ret = v;
    return true;
}

static bool word(struct json *j, const char *expected)
{
    for (; *expected; expected++) {
        if (stream_peek(j->st) != *expected)
            return broken(j, "true, false or null is expected");
        take(j);
    }
    return true;
}

bool json_bool(struct json *j, bool *ret)
{
    int c = peek_after_space(j);
    if (c != 't' && c != 'f')
        return broken(j, "true or false is expected");
    if (!word(j, c == 't' ? "true" : "false"))
        return false;
    *ret = c == 't';
    return true;
}

/* Takes a value that holds no other. */
static bool skip_plain(struct json *j, enum json_kind kind)
{
    double number;
    bool flag;
    switch (kind) {
    case JSON_TEXT:
        return json_text(j) != NULL;
    case JSON_NUMBER:
        return json_number(j, &number);
    case JSON_BOOL:
        return json_bool(j, &flag);
    case JSON_NULL:
        return word(j, "null");
    case JSON_OBJECT:
    case JSON_ARRAY:
    case JSON_NONE:
        break;
    }
    return broken(j, "a value is expected");
}

bool json_skip(struct json *j)
{
    unsigned outer = j->depth;
    uint64_t objects = 0; /* bit d: the container at depth d is an object */
    do {
        enum json_kind kind = json_peek(j);
        if (kind == JSON_OBJECT || kind == JSON_ARRAY) {
            if (!json_begin(j, kind == JSON_OBJECT ? '{' : '['))
                return false;
            objects = kind == JSON_OBJECT ? objects | UINT64_C(1) << j->depth : objects & ~(UINT64_C(1) << j->depth);
        } else if (!skip_plain(j, kind)) {
            return false;
        }
        while (j->depth > outer && !(objects >> j->depth & 1 ? json_member(j) : json_item(j)))
            if (j->st->result)
                return false;
    } while (j->depth > outer);
    return !j->st->result;
}

bool json_end(struct json *j)
{
    (void)peek_after_space(j); /* takes the space; -1 at the end */
    if (!j->st->result && j->st->at < j->st->end)
        return broken(j, "something follows the end");
    return !j->st->result;
}
