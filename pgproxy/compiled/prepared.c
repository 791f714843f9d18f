/* session/prepared.py, session/completions.py: a batch of a statement that leaves nothing. */

#include "twin.h"

/* Where the first zero is in a part of a run; -1 if there is none. */
static Py_ssize_t
zero(const char *run, Py_ssize_t start, Py_ssize_t stop)
{
    const char *found = start < stop ? memchr(run + start, 0, (size_t)(stop - start)) : NULL;
    return found == NULL ? -1 : found - run;
}

/* Whether a Describe is whole, and of a portal: parts.py:is_portals. */
static bool
is_portals(const char *run, const Frame *frame)
{
    Py_ssize_t size = frame->stop - frame->start;
    if (size < HEADER + 2 || run[frame->stop - 1] || run[frame->start + HEADER] != 'P') {
        return false;
    }
    return word(run + frame->start + 1) == (uint64_t)size - 1;
}

/* Whether the client's unnamed statement has this body, and leaves nothing. */
static int
is_last_body(State *state, PyObject *prepared, const char *body, Py_ssize_t size)
{
    PyObject *last = NULL, *known = NULL;
    int answer = -1;
    NEED(last, get(state, prepared, Prepared__unnamed));
    if (last == Py_None) {
        goto seldom;
    }
    ONLY_IF(is(state, last, Statement__verdict, state->harmless));
    ONLY_IF(is_true(state, last, Statement__whole));
    NEED(known, get(state, last, Statement__body));
    answer = PyBytes_CheckExact(known) && PyBytes_GET_SIZE(known) == size
        && memcmp(PyBytes_AS_STRING(known), body, (size_t)size) == 0;
    goto failed;
seldom:
    answer = 0;
failed:
    Py_XDECREF(last);
    Py_XDECREF(known);
    return answer;
}

/* Whether the text of a Query, or of the unnamed Parse of a whole batch, leaves nothing. */
int
is_harmless(State *state, PyObject *prepared, const Skimmed *skimmed, Part *text)
{
    const char *run = PyBytes_AS_STRING(skimmed->run);
    const Frame *frame = skimmed->frames;
    if (ARE(skimmed, "Q")) {
        *text = (Part){frame->start + HEADER, frame->stop - 1, false};
        if (frame->stop - frame->start > CACHED_TEXT) {
            return 0;
        }
    } else {
        *text = (Part){frame->start + HEADER + 1, zero(run, frame->start + HEADER + 1, frame->stop), false};
        Py_ssize_t portal_end = zero(run, frame[1].start + HEADER, frame[1].stop);
        if (run[frame->start + HEADER] || text->stop < 0 || text->stop - frame->start > CACHED_TEXT
            || frame->stop - frame->start > TEXT_LOOK || portal_end < 0
            || portal_end + 1 >= frame[1].stop || run[portal_end + 1]
            || (ARE(skimmed, "PBDES") && !is_portals(run, &frame[2]))) {
            return 0;
        }
        int same = is_last_body(state, prepared, run + text->start, frame->stop - text->start);
        if (same) {
            text->same = same > 0;
            return same;
        }
    }
    int says = quick(state, run + text->start, text->stop - text->start);
    return says < 0 ? -1 : says == SAYS_HARMLESS;
}

/* Whether the client's unnamed statement is one of which neither another server nor anybody else knows. */
static bool
is_known_here_only(State *state, PyObject *statement, PyObject *there)
{
    /* Known: by the client, by this server perhaps, and by the two who ask. */
    return Py_TYPE(statement) == state->types[Statement__body]
        && Py_REFCNT(statement) == (there == statement ? 4 : 2);
}

/* The unnamed statement of a Parse: a new one, or the one before, made new, where that is nobody else's. */
static PyObject *
unnamed_statement(State *state, const Said *said, Part text)
{
    PyObject *body = NULL, *turn = NULL, *meaning = NULL, *last = NULL, *there = NULL, *statement = NULL;
    const char *run = PyBytes_AS_STRING(said->skimmed->run);
    PyTypeObject *type = state->types[Statement__body];
    NEED(turn, PyIter_Next(state->turns));
    NEED(meaning, get(state, said->prepared, Prepared__meaning));
    NEED(last, get(state, said->prepared, Prepared__unnamed));
    NEED(there, get(state, said->session, ServerSession__unnamed));
    bool anew = text.same && is_known_here_only(state, last, there);
    if (anew) {
        statement = Py_NewRef(last);
    } else {
        NEED(body, text.same ? get(state, last, Statement__body)
                             : PyBytes_FromStringAndSize(run + text.start, said->skimmed->frames[0].stop - text.start));
        NEED(statement, type->tp_alloc(type, 0));
    }
    if ((!anew
         && (set(state, statement, Statement__body, body) < 0
             || set(state, statement, Statement__verdict, state->harmless) < 0
             || set(state, statement, Statement__whole, Py_True) < 0))
        || set(state, statement, Statement__meaning, meaning) < 0
        || set(state, statement, Statement__turn, turn) < 0
        || set(state, statement, Statement__description, Py_None) < 0) {
        Py_CLEAR(statement);
    }
failed:
    Py_XDECREF(body);
    Py_XDECREF(turn);
    Py_XDECREF(meaning);
    Py_XDECREF(last);
    Py_XDECREF(there);
    return statement;
}

/* Enter the unnamed statement of a Parse, where no completion is owed: prepared.py:_prepares. */
int
parse(State *state, const Said *said, Part text)
{
    PyObject *statement = NULL, *completions = NULL, *batch = NULL;
    int done = -1;
    NEED(statement, unnamed_statement(state, said, text));
    NEED(batch, get(state, said->ledger, Ledger__asked));
    NEED(completions, get(state, said->talk, Following___completions));
    DO(set(state, completions, Completions__sole, batch));
    DO(set(state, said->prepared, Prepared__unnamed, statement));
    DO(set(state, said->session, ServerSession__unnamed, statement));
    done = 0;
failed:
    Py_XDECREF(statement);
    Py_XDECREF(completions);
    Py_XDECREF(batch);
    return done;
}

/* How many Binds there are in a batch that is nothing but these, each with an Execute, perhaps a Describe; or 0. */
int
count_binds(const Skimmed *skimmed)
{
    const char *tag = skimmed->tags, *end = tag + skimmed->count - 1;
    int binds = 0;
    if (skimmed->count < 3 || skimmed->count > LONGEST_PLAIN || *end != 'S') {
        return 0;
    }
    for (; tag < end && *tag == 'B'; binds++) {
        tag += tag[1] == 'D' ? 2 : 1;
        if (tag >= end || *tag++ != 'E') {
            return 0;
        }
    }
    return tag == end ? binds : 0;
}

/* A Bind of a statement that the server has. */
typedef struct {
    const Frame *frame;
    Py_ssize_t name_start, name_end;
    PyObject *name, *key, *copy, *ours;
} Bind;

static void
forget_bind(Bind *bind)
{
    Py_XDECREF(bind->name);
    Py_XDECREF(bind->key);
    Py_XDECREF(bind->copy);
    Py_XDECREF(bind->ours);
}

/* Find the statement of a Bind, where it leaves nothing, and is there as the client knows it; 0 where it is not. */
static int
look_up(State *state, PyObject *book, PyObject *copies, const char *run, Bind *bind)
{
    PyObject *statement = NULL, *body = NULL, *meaning = NULL, *told = NULL, *describes = NULL;
    const Frame *frame = bind->frame;
    Py_ssize_t turn, latest;
    int done = -1;
    Py_ssize_t portal_end = zero(run, frame->start + HEADER, frame->stop);
    bind->name_start = portal_end + 1;
    bind->name_end = portal_end < 0 ? -1 : zero(run, portal_end + 1, frame->stop);
    Py_ssize_t size = bind->name_end - bind->name_start;
    if (portal_end < 0 || size < 1 || size > LONGEST_NAME) {
        return 0;
    }
    NEED(bind->name, PyBytes_FromStringAndSize(run + bind->name_start, size));
    statement = Py_XNewRef(PyDict_GetItemWithError(book, bind->name));
    if (statement == NULL) {
        if (PyErr_Occurred()) {
            goto failed;
        }
        goto seldom;
    }
    ONLY_IF(is(state, statement, Statement__verdict, state->harmless));
    ONLY_IF(is_true(state, statement, Statement__whole));
    NEED(body, get(state, statement, Statement__body));
    NEED(meaning, get(state, statement, Statement__meaning));
    NEED(bind->key, PyTuple_Pack(2, body, meaning));
    bind->copy = Py_XNewRef(PyDict_GetItemWithError(copies, bind->key));
    if (bind->copy == NULL) {
        if (PyErr_Occurred()) {
            goto failed;
        }
        goto seldom;
    }
    DO(get_number(state, bind->copy, Copy__turn, &latest));
    DO(get_number(state, statement, Statement__turn, &turn));
    if (latest < turn) {
        goto seldom;
    }
    NEED(told, get(state, statement, Statement__description));
    if (told != Py_None) {
        NEED(describes, get(state, bind->copy, Copy__description));
        ONLY_IF(PyObject_RichCompareBool(told, describes, Py_EQ));
    }
    NEED(bind->ours, get(state, bind->copy, Copy__name));
    done = PyBytes_CheckExact(bind->ours);
    goto failed;
seldom:
    done = 0;
failed:
    Py_XDECREF(statement);
    Py_XDECREF(body);
    Py_XDECREF(meaning);
    Py_XDECREF(told);
    Py_XDECREF(describes);
    return done;
}

/* Write a batch with the server's names in it. */
static PyObject *
translate(PyObject *run, const Bind *binds, int count)
{
    Py_ssize_t size = PyBytes_GET_SIZE(run), done = 0;
    const char *from = PyBytes_AS_STRING(run);
    for (int at = 0; at < count; at++) {
        size += PyBytes_GET_SIZE(binds[at].ours) - (binds[at].name_end - binds[at].name_start);
    }
    PyObject *instead = PyBytes_FromStringAndSize(NULL, size);
    if (instead == NULL) {
        return NULL;
    }
    char *to = PyBytes_AS_STRING(instead);
    for (int at = 0; at < count; at++) {
        const Bind *bind = &binds[at];
        Py_ssize_t ours = PyBytes_GET_SIZE(bind->ours), start = bind->frame->start, before = bind->name_start - done;
        uint32_t says = word(from + start + 1) + (uint32_t)(ours - (bind->name_end - bind->name_start));
        memcpy(to, from + done, (size_t)before);
        for (int byte = 0; byte < 4; byte++) {
            to[start - done + 1 + byte] = (char)(says >> (24 - 8 * byte));
        }
        memcpy(to + before, PyBytes_AS_STRING(bind->ours), (size_t)ours);
        to += before + ours;
        done = bind->name_end;
    }
    memcpy(to, from + done, (size_t)(PyBytes_GET_SIZE(run) - done));
    return instead;
}

/*
 * Say a batch of Binds in the server's words, where the server has the statements, and they leave nothing:
 * prepared.py:_binds. Gives 1 with what goes to the server, 0 if more has to be done about it.
 */
int
say_binds(State *state, const Said *said, PyObject **instead)
{
    PyObject *named = NULL, *book = NULL, *statements = NULL, *copies = NULL, *called = NULL;
    const Skimmed *skimmed = said->skimmed;
    const char *run = PyBytes_AS_STRING(skimmed->run);
    Bind binds[LONGEST_PLAIN];
    int count = 0, done = -1;
    ONLY_IF(is(state, said->prepared, Prepared__scope, Py_None));
    UNLESS_SELDOM(is_true(state, said->prepared, Prepared__own_names));
    NEED(named, get(state, said->prepared, Prepared___statements));
    NEED(book, get(state, named, NamedStatements___statements));
    NEED(statements, get(state, said->session, ServerSession__statements));
    NEED(copies, get(state, statements, ServerStatements___copies));
    NEED(called, get(state, said->prepared, Prepared___called));
    if (!PyDict_CheckExact(book) || !PyDict_CheckExact(copies) || !PyDict_CheckExact(called)
        || PyDict_GET_SIZE(called) + LONGEST_PLAIN > MOST_CALLED || state->harmless == NULL) {
        goto seldom;
    }
    for (Py_ssize_t at = 0; at < skimmed->count; at++) {
        if (skimmed->tags[at] == 'D' && !is_portals(run, &skimmed->frames[at])) {
            goto seldom;
        }
        if (skimmed->tags[at] == 'B') {
            binds[count] = (Bind){.frame = &skimmed->frames[at]};
            count++;
            ONLY_IF(look_up(state, book, copies, run, &binds[count - 1]));
        }
    }
    NEED(*instead, translate(skimmed->run, binds, count));
    for (int at = 0; at < count; at++) {
        /* The one used last is the last. */
        PyObject *copy = binds[at].copy, *key = binds[at].key;
        int last = is(state, statements, ServerStatements__latest, copy);
        DO(last);
        if (!last) {
            DO(PyDict_DelItem(copies, key));
            DO(PyDict_SetItem(copies, key, copy));
            DO(set(state, statements, ServerStatements__latest, copy));
        }
        DO(PyDict_SetItem(called, binds[at].ours, binds[at].name));
    }
    DO(set(state, said->prepared, Prepared___verified, Py_None));
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    if (done <= 0) {
        Py_CLEAR(*instead);
    }
    for (int at = 0; at < count; at++) {
        forget_bind(&binds[at]);
    }
    Py_XDECREF(named);
    Py_XDECREF(book);
    Py_XDECREF(statements);
    Py_XDECREF(copies);
    Py_XDECREF(called);
    return done;
}

/* Whether any completion is owed. */
int
owes_completions(State *state, PyObject *completions)
{
    int none = is(state, completions, Completions__sole, Py_None);
    if (none <= 0) {
        return none < 0 ? -1 : 1;
    }
    int empty = is_empty(state, completions, Completions___owed);
    return empty < 0 ? -1 : !empty;
}

/* Whether the one completion that is owed is that of a Parse of the client's. */
int
is_clients_parse(State *state, PyObject *completions)
{
    int none = is(state, completions, Completions__sole, Py_None);
    return none < 0 ? -1 : !none;
}
