/* session/suspicion.py:quick: what a text may leave behind. */

#include "twin.h"

static bool
is_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static bool
is_letter(unsigned char c)
{
    return c >= 'a' && c <= 'z';
}

/* Of the lower case. */
static bool
is_word(unsigned char c)
{
    return is_letter(c) || is_digit(c) || c == '_';
}

static bool
is_name(unsigned char c)
{
    return is_word(c) || c == '$' || c >= 0x80;
}

static bool
contains(const unsigned char *text, Py_ssize_t size, const char *what)
{
    return size > 0 && memmem(text, (size_t)size, what, strlen(what)) != NULL;
}

static bool
starts(const unsigned char *text, Py_ssize_t size, const char *what)
{
    return size >= (Py_ssize_t)strlen(what) && memcmp(text, what, strlen(what)) == 0;
}

static Py_ssize_t
skip_space(const unsigned char *text, Py_ssize_t size, Py_ssize_t at)
{
    while (at < size && is_space(text[at])) {
        at++;
    }
    return at;
}

/* Where what stands before a place ends, but for space. */
static Py_ssize_t
before_space(const unsigned char *text, Py_ssize_t at)
{
    while (at > 0 && is_space(text[at - 1])) {
        at--;
    }
    return at;
}

/* Where the head of an INSERT ends, behind the parenthesis that may follow the table; -1 if it is none. */
static Py_ssize_t
insert_head(const unsigned char *text, Py_ssize_t size)
{
    static const char *const not_tables[] = {"temp", "local", "global", "into"};
    Py_ssize_t at = skip_space(text, size, 0) + (Py_ssize_t)strlen("insert");
    Py_ssize_t next = skip_space(text, size, at);
    if (next == at || !starts(text + next, size - next, "into")) {
        return -1;
    }
    at = next + (Py_ssize_t)strlen("into");
    next = skip_space(text, size, at);
    if (next == at) {
        return -1;
    }
    for (size_t which = 0; which < Py_ARRAY_LENGTH(not_tables); which++) {
        if (starts(text + next, size - next, not_tables[which])) {
            return -1;
        }
    }
    at = next;
    while (at < size) {
        if (is_word(text[at]) || text[at] == '.') {
            at++;
        } else if (text[at] == '"') {
            const unsigned char *end = memchr(text + at + 1, '"', (size_t)(size - at - 1));
            if (end == NULL) {
                break;
            }
            at = end - text + 1;
        } else {
            break;
        }
    }
    if (at == next) {
        return -1;
    }
    at = skip_space(text, size, at);
    return at < size && text[at] == '(' ? at + 1 : at;
}

/* Whether all that stands before a parenthesis is harmless; -1 with an exception. */
static int
calls_are_harmless(State *state, const unsigned char *text, Py_ssize_t size)
{
    for (Py_ssize_t at = 0; at < size; at++) {
        if (text[at] != '(') {
            continue;
        }
        Py_ssize_t end = before_space(text, at);
        Py_ssize_t before = -1;
        if (end >= 4 && memcmp(text + end - 4, "over", 4) == 0) {
            before = end - 4;
        } else if (end >= 6 && memcmp(text + end - 6, "filter", 6) == 0) {
            before = end - 6;
        }
        if (before >= 0) {
            before = before_space(text, before);
            if (before > 0 && text[before - 1] == ')') {
                continue;
            }
        }
        Py_ssize_t start = end;
        while (start > 0 && (is_name(text[start - 1]) || text[start - 1] == '"')) {
            start--;
        }
        before = before_space(text, start);
        if (before > 0 && text[before - 1] == '.') {
            return 0;
        }
        if (start == end) {
            continue;
        }
        PyObject *word = PyBytes_FromStringAndSize((const char *)text + start, end - start);
        if (word == NULL) {
            return -1;
        }
        int harmless = PySet_Contains(state->words, word);
        Py_DECREF(word);
        if (harmless <= 0) {
            return harmless;
        }
    }
    return 1;
}

/* Where a comment ends that begins here; -1 where it does not, or another begins in it. */
static Py_ssize_t
comment_end(const unsigned char *text, Py_ssize_t size, Py_ssize_t at)
{
    for (at += 2; at + 1 < size; at++) {
        if (text[at] == '*' && text[at + 1] == '/') {
            return at + 2;
        }
        if (text[at] == '/' && text[at + 1] == '*') {
            return -1;
        }
    }
    return -1;
}

/* Put a space for each comment; false where that can't be told from what is quoted. */
static bool
blank_comments(unsigned char *text, Py_ssize_t *size)
{
    Py_ssize_t kept = 0, at = 0, end;
    for (Py_ssize_t look = 0; look < *size; look++) {
        unsigned char next = look + 1 < *size ? text[look + 1] : 0;
        if (text[look] == '\\' || (text[look] == '-' && next == '-') || (text[look] == '&' && next == '"')
            || (text[look] == '$' && !is_digit(next))) {
            return false;
        }
    }
    while (at < *size) {
        unsigned char c = text[at];
        if (c == '/' && at + 1 < *size && text[at + 1] == '*') {
            end = comment_end(text, *size, at);
            if (end < 0) {
                return false;
            }
            text[kept++] = ' ';
            at = end;
            continue;
        }
        const unsigned char *quote =
            c == '\'' || c == '"' ? memchr(text + at + 1, c, (size_t)(*size - at - 1)) : NULL;
        end = quote == NULL ? at + 1 : quote - text + 1;
        memmove(text + kept, text + at, (size_t)(end - at));
        kept += end - at;
        at = end;
    }
    *size = kept;
    return true;
}

/* Judge a text that is in lower case, without comments; -1 with an exception. */
static int
judge(State *state, const unsigned char *text, Py_ssize_t size)
{
    static const char *const ends[] = {
        "begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release",
    };
    Py_ssize_t head = skip_space(text, size, 0), tail = head;
    while (tail < size && is_letter(text[tail])) {
        tail++;
    }
    if (tail == head || (tail < size && is_name(text[tail]))) {
        return NOTHING_SAID;
    }
    Py_ssize_t semicolon = -1;
    bool calls = false, into = false;
    for (Py_ssize_t at = 0; at < size; at++) {
        unsigned char next = at + 1 < size ? text[at + 1] : 0;
        switch (text[at]) {
        case '\\':
            return NOTHING_SAID;
        case '-':
            if (next == '-') {
                return NOTHING_SAID;
            }
            break;
        case '&':
            if (next == '"') {
                return NOTHING_SAID;
            }
            break;
        case '$':
            if (!is_digit(next)) {
                return NOTHING_SAID;
            }
            break;
        case 'p':
            if (next == 'g' && at + 2 < size && text[at + 2] == '_') {
                return NOTHING_SAID;
            }
            break;
        case 'i':
            into = into || starts(text + at, size - at, "into");
            break;
        case ';':
            if (semicolon < 0) {
                semicolon = at;
            }
            break;
        case '(':
            calls = true;
            break;
        default:
            break;
        }
    }
    if (semicolon >= 0 && skip_space(text, size, semicolon + 1) < size) {
        return NOTHING_SAID;
    }
    const unsigned char *verb = text + head;
    size_t length = (size_t)(tail - head);
#define IS(what) (length == strlen(what) && memcmp(verb, what, length) == 0)
    for (size_t which = 0; which < Py_ARRAY_LENGTH(ends); which++) {
        if (IS(ends[which])) {
            return SAYS_HARMLESS;
        }
    }
    int says = SAYS_HARMLESS;
    if (IS("insert")) {
        Py_ssize_t end = insert_head(text, size);
        if (end < 0) {
            return NOTHING_SAID;
        }
        text += end;
        size -= end;
        into = contains(text, size, "into");
        calls = contains(text, size, "(");
        says = SAYS_WRITES;
    } else if (IS("update")) {
        if (contains(text, size, "default")) {
            return NOTHING_SAID;
        }
    } else if (IS("with")) {
        if (contains(text, size, "insert") || contains(text, size, "merge")
            || contains(text, size, "default")) {
            return NOTHING_SAID;
        }
    } else if (!IS("select") && !IS("delete")) {
        return NOTHING_SAID;
    }
#undef IS
    if (into) {
        return NOTHING_SAID;
    }
    if (calls) {
        if (contains(text, size, "distinct")) {
            return NOTHING_SAID;
        }
        int harmless = calls_are_harmless(state, text, size);
        if (harmless <= 0) {
            return harmless < 0 ? -1 : NOTHING_SAID;
        }
    }
    return says;
}

/* Whether a digit is in what stands before a parenthesis: which one it is tells functions apart. */
static bool
calls_with_digits(const unsigned char *text, Py_ssize_t size)
{
    for (Py_ssize_t at = 0; at < size; at++) {
        if (text[at] != '(') {
            continue;
        }
        Py_ssize_t end = before_space(text, at);
        for (; end > 0 && (is_name(text[end - 1]) || text[end - 1] == '"'); end--) {
            if (is_digit(text[end - 1])) {
                return true;
            }
        }
    }
    return false;
}

static bool
is_commented(const char *text, Py_ssize_t size)
{
    const char *end = text + size, *star = text;
    while ((star = memchr(star, '*', (size_t)(end - star))) != NULL) {
        if (star > text && star[-1] == '/') {
            return true;
        }
        star++;
    }
    return false;
}

/* Judge a text of at most CACHED_TEXT bytes: most are known already, but for their digits (see suspicion.Verdicts). */
int
quick(State *state, const char *text, Py_ssize_t size)
{
    unsigned char lower[CACHED_TEXT], folded[CACHED_TEXT];
    if (state->words == NULL || size <= 0 || size > CACHED_TEXT) {
        return NOTHING_SAID;
    }
    /* Without a branch: the compiler takes sixteen bytes at a time. */
    for (Py_ssize_t at = 0; at < size; at++) {
        unsigned char c = (unsigned char)text[at];
        c |= (unsigned char)(c - 'A') < 26 ? 0x20 : 0;
        lower[at] = c;
        folded[at] = (unsigned char)(c - '0') < 10 ? '0' : c;
    }
    if (UNLIKELY(is_commented(text, size))) {
        if (!blank_comments(lower, &size)) {
            return NOTHING_SAID;
        }
        for (Py_ssize_t at = 0; at < size; at++) {
            folded[at] = is_digit(lower[at]) ? '0' : lower[at];
        }
    }
    Judged *judged = &state->judged[(size_t)size % JUDGED];
    if (judged->size == size && memcmp(judged->text, folded, (size_t)size) == 0) {
        return judged->says;
    }
    int says = judge(state, lower, size);
    if (says >= 0 && size <= LONGEST_JUDGED && !calls_with_digits(lower, size)) {
        judged->size = size;
        judged->says = says;
        memcpy(judged->text, folded, (size_t)size);
    }
    return says;
}

PyObject *
quick_says(PyObject *module, PyObject *text)
{
    if (!PyBytes_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "a text is bytes");
        return NULL;
    }
    int says = quick(state_of(module), PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text));
    return says < 0 ? NULL : PyLong_FromLong(says);
}
