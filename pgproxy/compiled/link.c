/* link/splice.py, session/following.py: a message that leaves nothing, and its answer. */

#include "twin.h"

/* Link a server if there is nothing to be said to anybody; give 1 if it is linked. */
static int
link_up(State *state, PyObject *splice, PyObject *talk, PyObject *prepared, PyObject *ledger, PyObject *server)
{
    PyObject *record = NULL, *session = NULL, *habits = NULL, *left = NULL, *skim = NULL, *told = NULL;
    PyObject *settings = NULL, *client = NULL, *transport = NULL, *hear = NULL, *initial = NULL;
    int linked = -1;
    NEED(record, get(state, server, ServerConnection__record));
    NEED(session, get(state, record, Server__session));
    NEED(habits, get(state, session, ServerSession__habits));
    NEED(left, get(state, session, ServerSession__leftovers));
    NEED(skim, get(state, server, ServerConnection__skim));
    NEED(told, get(state, talk, Conversation__told));
    NEED(initial, get(state, session, ServerSession__initial));
    NEED(settings, get(state, talk, Conversation__settings));
    ONLY_IF(is(state, splice, Splice___first, Py_None));
    UNLESS_SELDOM(is_true(state, skim, Skimmer__left));
    ONLY_IF(is(state, session, ServerSession__reported, told));
    ONLY_IF(is(state, talk, Following___initial, initial));
    ONLY_IF(is(state, session, ServerSession__settings, settings));
    UNLESS_SELDOM(PySet_CheckExact(left) ? PySet_GET_SIZE(left) > 0 : PyObject_IsTrue(left));
    UNLESS_SELDOM(is_true(state, habits, Habits__hidden));
    UNLESS_SELDOM(is_true(state, habits, Habits__sequences_matter));
    if (state->quiet == NULL) {
        goto seldom;
    }
    ONLY_IF(is(state, talk, Following___quiet, state->quiet));
    int owner = is(state, session, ServerSession__owner, talk);
    DO(owner);
    if (!owner) {
        UNLESS_SELDOM(is_true(state, session, ServerSession__opaque));
        DO(set(state, session, ServerSession__owner, talk));
    }
    NEED(client, get(state, splice, Splice___client));
    NEED(transport, get(state, server, ServerConnection__transport));
    NEED(hear, get(state, splice, Splice___hear));
    if (hear == Py_None) {
        Py_DECREF(hear);
        NEED(hear, bound(state, splice, Splice___server, state->own[Splice___from_server], call__from_server));
        DO(set(state, splice, Splice___hear, hear));
    }
    DO(set(state, splice, Splice___server, server));
    DO(set(state, server, ServerConnection__receive, hear));
    DO(couple(state, client, transport));
    DO(set(state, talk, Conversation__server, session));
    DO(set(state, prepared, Prepared__server, session));
    DO(set(state, prepared, Prepared__ledger, ledger));
    linked = 1;
    goto done;
seldom:
    linked = 0;
failed:
done:
    Py_XDECREF(record);
    Py_XDECREF(session);
    Py_XDECREF(habits);
    Py_XDECREF(left);
    Py_XDECREF(skim);
    Py_XDECREF(told);
    Py_XDECREF(initial);
    Py_XDECREF(settings);
    Py_XDECREF(client);
    Py_XDECREF(transport);
    Py_XDECREF(hear);
    return linked;
}

static PyObject *
take(State *state, PyObject *splice, PyObject *talk)
{
    PyObject *lender = NULL, *terms = NULL, *parameters = NULL, *settings = NULL, *sequences = NULL;
    PyObject *home = NULL, *server = NULL;
    NEED(lender, get(state, splice, Splice___lender));
    NEED(terms, get(state, splice, Splice___terms));
    NEED(parameters, get(state, terms, Terms__parameters));
    NEED(settings, get(state, talk, Conversation__settings));
    NEED(sequences, get(state, talk, Following___sequences));
    NEED(home, get(state, sequences, Sequences__home));
    PyObject *all[] = {lender, splice, parameters, settings, home};
    server = lend(state, all);
failed:
    Py_XDECREF(lender);
    Py_XDECREF(terms);
    Py_XDECREF(parameters);
    Py_XDECREF(settings);
    Py_XDECREF(sequences);
    Py_XDECREF(home);
    return server;
}

/* Whether a text has currval or lastval in it: `Sequences.may_be_asked`. */
static bool
asks_sequences(const char *text, Py_ssize_t size)
{
    for (Py_ssize_t at = 4; at < size - 2; at++) {
        if ((text[at] | 0x20) == 'v' && (text[at + 1] | 0x20) == 'a' && (text[at + 2] | 0x20) == 'l'
            && (strncasecmp(text + at - 4, "curr", 4) == 0 || strncasecmp(text + at - 4, "last", 4) == 0)) {
            return true;
        }
    }
    return false;
}

/* Whether what has come may be answered with what others have left of sequences: `Following._asks_others`. */
static int
asks_others(State *state, PyObject *talk, PyObject *run)
{
    PyObject *session = NULL, *habits = NULL, *own = NULL;
    int answer = -1;
    NEED(session, get(state, talk, Conversation__server));
    NEED(own, get(state, talk, Following___sequences));
    UNLESS_SELDOM(is(state, session, ServerSession__sequences, Py_None));
    UNLESS_SELDOM(is(state, session, ServerSession__sequences, own));
    NEED(habits, get(state, session, ServerSession__habits));
    DO(answer = is_true(state, habits, Habits__sequences_matter));
    answer = answer || asks_sequences(PyBytes_AS_STRING(run), PyBytes_GET_SIZE(run));
    goto failed;
seldom:
    answer = 0;
failed:
    Py_XDECREF(session);
    Py_XDECREF(habits);
    Py_XDECREF(own);
    return answer;
}

/* Whether a link has been quiet, or may be taken for it within its transaction; `touched` says which of them. */
static int
is_quiet_link(State *state, PyObject *talk, int *touched)
{
    *touched = is_true(state, talk, Following___touched);
    return *touched > 0 ? is_true(state, talk, Following___calm) : *touched < 0 ? -1 : 1;
}

/* Let a method in Python deal with what was cut, and with what stands before it if there is something. */
static int
tell(State *state, enum call which, PyObject *splice, PyObject *before, const Skimmed *skimmed)
{
    PyObject *frames = listed(skimmed);
    if (frames == NULL) {
        return -1;
    }
    int done;
    if (before != NULL) {
        PyObject *all[] = {splice, before, skimmed->run, frames};
        done = ignore(call_python(state, which, all, 4));
    } else {
        PyObject *all[] = {splice, skimmed->run, frames};
        done = ignore(call_python(state, which, all, 3));
    }
    Py_DECREF(frames);
    return done;
}

enum { SOMETHING_ELSE, IS_DONE, NO_SERVER };

/*
 * Deal with what leaves nothing, a Query or a whole batch, in `given` where a server was waited for. Gives IS_DONE,
 * SOMETHING_ELSE, or NO_SERVER where none was to be had; -1 with an exception.
 */
static int
asks_plainly(State *state, PyObject *splice, PyObject *given, const Skimmed *skimmed)
{
    PyObject *server = NULL, *transport = NULL, *completions = NULL, *instead = NULL;
    Said said = {skimmed, NULL, NULL, NULL, NULL, NULL};
    const Frame *frame = skimmed->frames;
    Py_ssize_t first, second;
    Part text = {0, 0, false};
    int done = -1, touched;
    bool query = ARE(skimmed, "Q"), asks = ARE(skimmed, "BDES"), named = !query && count_binds(skimmed) > 0;
    bool batch = ARE(skimmed, "PBDES") || ARE(skimmed, "PBES");
    if (!query && !named && !(batch && state->types[Statement__body] && state->turns
          && state->harmless)) {
        return SOMETHING_ELSE;
    }
    NEED(said.talk, get(state, splice, Splice___talk));
    if (Py_TYPE(said.talk) != state->following) {
        goto seldom;
    }
    ONLY_IF(is_quiet_link(state, said.talk, &touched));
    if (touched) {
        UNLESS_SELDOM(asks_others(state, said.talk, skimmed->run));
    }
    UNLESS_SELDOM(is_true(state, splice, Splice___blocked));
    ONLY_IF(is(state, splice, Splice___sample, Py_None));
    NEED(said.prepared, get(state, said.talk, Following___prepared));
    ONLY_IF(is_true(state, said.prepared, Prepared__readable));
    if (!named) {
        ONLY_IF(is_harmless(state, said.prepared, skimmed, &text));
    }
    NEED(said.ledger, get(state, said.talk, Conversation__ledger));
    UNLESS_SELDOM(is_true(state, said.ledger, Ledger__batch_open));
    UNLESS_SELDOM(is_true(state, said.ledger, Ledger__copying));
    Py_ssize_t count = owed(state, said.ledger, &said.queue, &first, &second);
    DO(count);
    if (count + 1 >= MOST_OWED) {
        goto seldom;
    }
    if (!query) {
        NEED(completions, get(state, said.talk, Following___completions));
        UNLESS_SELDOM(owes_completions(state, completions));
    }
    NEED(server, get(state, splice, Splice___server));
    if (server == Py_None) {
        if (frame->start) {
            goto seldom;
        }
        UNLESS_SELDOM(is_true(state, splice, Splice___waiting));
        Py_DECREF(server);
        NEED(server, given != NULL ? Py_NewRef(given) : take(state, splice, said.talk));
        if (server == Py_None) {
            done = NO_SERVER;
            goto failed;
        }
        /* A transaction that is looked at closely is Python's. */
        int linked = is(state, splice, Splice___sample, Py_None);
        DO(linked);
        if (linked) {
            DO(linked = link_up(state, splice, said.talk, said.prepared, said.ledger, server));
        }
        if (!linked) {
            DO(tell(state, call__said_to, splice, server, skimmed));
            done = IS_DONE;
            goto failed;
        }
    }
    NEED(said.session, get(state, said.talk, Conversation__server));
    NEED(transport, get(state, server, ServerConnection__transport));
    if (named) {
        int again = is_true(state, said.talk, Following___again);
        DO(again);
        int bound = say_binds(state, &said, &instead);
        DO(bound);
        if (!bound) {
            DO(tell(state, call__said, splice, NULL, skimmed));
            done = IS_DONE;
            goto failed;
        }
        /* Who does not ask what it gets relies on what it was told before. */
        bool alone = asks && !count && !again && !frame->start && frame[3].stop == PyBytes_GET_SIZE(skimmed->run);
        int idle = is_status(state, said.ledger, 'I');
        DO(idle);
        DO(set(state, said.talk, Following___retry, alone && idle ? skimmed->run : Py_None));
    } else {
        DO(set(state, said.talk, Following___retry, Py_None));
    }
    bool keeps = !frame->start && PyBytes_GET_SIZE(skimmed->run) <= MOST_KEPT;
    DO(set(state, said.talk, Following___last, keeps ? skimmed->run : Py_None));
    if (named) {
        DO(set(state, said.talk, Following___again, Py_False));
    } else if (query) {
        DO(set(state, said.prepared, Prepared__unnamed, Py_None));
        DO(set(state, said.session, ServerSession__unnamed, Py_None));
    } else {
        DO(parse(state, &said, text));
        DO(set(state, said.talk, Following___again, Py_False));
    }
    DO(ask(state, said.ledger, said.queue, query ? 'Q' : 'S'));
    DO(set(state, said.talk, Conversation__plain, Py_True));
    DO(set(state, splice, Splice___used, Py_True));
    DO(put(state, transport, instead != NULL ? instead : skimmed->run));
    state->plain++;
    done = IS_DONE;
    goto failed;
seldom:
    done = SOMETHING_ELSE;
failed:
    Py_XDECREF(server);
    Py_XDECREF(transport);
    Py_XDECREF(completions);
    Py_XDECREF(instead);
    Py_XDECREF(said.talk);
    Py_XDECREF(said.prepared);
    Py_XDECREF(said.ledger);
    Py_XDECREF(said.queue);
    Py_XDECREF(said.session);
    return done;
}

PyObject *
from_client(State *state, PyObject *splice, PyObject *data)
{
    PyObject *skim;
    Skimmed skimmed;
    int leaving = is_true(state, splice, Splice___leaving);
    if (leaving) {
        return leaving < 0 ? NULL : Py_NewRef(Py_None);
    }
    skim = get(state, splice, Splice___skim);
    if (skim == NULL) {
        return NULL;
    }
    int done = cut(state, skim, data, &skimmed);
    if (done > 0) {
        done = enter(state, skim, &skimmed) < 0 ? -1 : asks_plainly(state, splice, NULL, &skimmed);
        if (done == SOMETHING_ELSE) {
            done = tell(state, call__said, splice, NULL, &skimmed);
        } else if (done == NO_SERVER) {
            done = stand_in_line(state, splice, &skimmed);
            if (done == 0) {
                done = tell(state, call__wait_with, splice, NULL, &skimmed);
            }
        }
        forget(&skimmed);
    } else if (done == 0) {
        PyObject *both[] = {splice, data};
        done = ignore(in_python(state, Splice__from_client, both, 2));
    }
    Py_DECREF(skim);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *
Splice_from_client(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    return count == 2 ? from_client(state, arguments[0], arguments[1])
                      : in_python(state, Splice__from_client, arguments, count);
}

/* Take what was held, where that is one run; 0 where it is something else. */
static int
read_held(State *state, PyObject *held, Skimmed *skimmed)
{
    PyObject *one = PyList_CheckExact(held) && PyList_GET_SIZE(held) == 1 ? PyList_GET_ITEM(held, 0) : NULL;
    if (one == NULL || !PyTuple_CheckExact(one) || PyTuple_GET_SIZE(one) != 2) {
        return 0;
    }
    PyObject *run = PyTuple_GET_ITEM(one, 0), *frames = PyTuple_GET_ITEM(one, 1);
    if (!PyBytes_CheckExact(run) || !PyList_CheckExact(frames) || PyList_GET_SIZE(frames) > MOST_FRAMES) {
        return 0;
    }
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(frames); at++) {
        Frame *frame = &skimmed->frames[at];
        PyObject *item = PyList_GET_ITEM(frames, at);
        Py_ssize_t tag;
        if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3 || !small(PyTuple_GET_ITEM(item, 0), &tag)
            || !small(PyTuple_GET_ITEM(item, 1), &frame->start)
            || !small(PyTuple_GET_ITEM(item, 2), &frame->stop)) {
            return 0;
        }
        skimmed->tags[at] = (char)tag;
    }
    skimmed->count = PyList_GET_SIZE(frames);
    skimmed->run = Py_NewRef(run);
    skimmed->held = Py_NewRef(state->empty);
    return 1;
}

/* Link a client that has waited, and send what it said meanwhile; 0 where that is not one plain thing. */
int
serve_held(State *state, PyObject *splice, PyObject *server)
{
    PyObject *held = NULL, *one = NULL, *size = NULL, *client = NULL;
    Skimmed skimmed = {.count = 0};
    int done = -1;
    NEED(held, get(state, splice, Splice___held));
    ONLY_IF(read_held(state, held, &skimmed));
    NEED(size, get(state, splice, Splice___held_size));
    NEED(client, get(state, splice, Splice___client));
    int reading = is_a(state, client, Stream___reading) ? is_true(state, client, Stream___reading) : 0;
    DO(reading);
    if (!reading) {
        DO(ignore(call_python_with(state, call_resumeProducing, client, NULL)));
    }
    one = Py_NewRef(PyList_GET_ITEM(held, 0));
    DO(PyList_SetSlice(held, 0, 1, NULL));
    DO(set_number(state, splice, Splice___held_size, 0));
    unsigned long before = state->plain;
    int found = asks_plainly(state, splice, server, &skimmed);
    /* The event that has brought us here was another's, and is counted for it. */
    state->plain = before;
    DO(found);
    if (found == SOMETHING_ELSE) {
        DO(PyList_Append(held, one));
        DO(set(state, splice, Splice___held_size, size));
        goto seldom;
    }
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    forget(&skimmed);
    Py_XDECREF(held);
    Py_XDECREF(one);
    Py_XDECREF(size);
    Py_XDECREF(client);
    return done;
}

PyObject *
Splice__serve_held(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    int done = count == 2 ? serve_held(state, arguments[0], arguments[1]) : 0;
    if (done < 0) {
        return NULL;
    }
    return done ? Py_NewRef(Py_None) : in_python(state, Splice___serve_held, arguments, count);
}

/* Let a server go that owes nothing, and whose client has not been anything but quiet. */
static int
let_go(State *state, PyObject *splice, PyObject *talk, PyObject *server, PyObject *skim)
{
    PyObject *client = NULL, *transport = NULL, *lender = NULL;
    int done = -1;
    ONLY_IF(is_true(state, talk, Conversation__lets_go));
    UNLESS_SELDOM(is_true(state, server, ServerConnection__cancels));
    UNLESS_SELDOM(is_true(state, server, ServerConnection__cancel_in_doubt));
    if (state->from_server == NULL) {
        goto seldom;
    }
    ONLY_IF(is(state, skim, Skimmer__direction, state->from_server));
    NEED(client, get(state, splice, Splice___client));
    NEED(transport, get(state, server, ServerConnection__transport));
    NEED(lender, get(state, splice, Splice___lender));
    DO(set(state, splice, Splice___server, Py_None));
    DO(uncouple(state, client, transport));
    DO(set(state, talk, Conversation__server, Py_None));
    done = take_back(state, lender, server);
    goto failed;
seldom:
    /* Something may be asked of the server, or the server may wait for something. */
    state->plain--;
    done = ignore(call_python_with(state, call__go_on, splice, NULL));
failed:
    Py_XDECREF(client);
    Py_XDECREF(transport);
    Py_XDECREF(lender);
    return done;
}

/* Whether nothing is in the way of going on as always: what `Splice._heard` asks. */
static int
is_routine(State *state, PyObject *splice)
{
    ONLY_IF(is(state, splice, Splice___asked_since, Py_None));
    ONLY_IF(is(state, splice, Splice___cancel_wanted, Py_None));
    ONLY_IF(is(state, splice, Splice___sample, Py_None));
    UNLESS_SELDOM(is_true(state, splice, Splice___blocked));
    UNLESS_SELDOM(is_true(state, splice, Splice___unfinished));
    UNLESS_SELDOM(is_true(state, splice, Splice___overdrawn));
    return 1;
seldom:
    return 0;
failed:
    return -1;
}

/* Whether a command is COMMIT: it leaves nothing, where statements do nothing in hiding. */
static bool
is_commit(const char *run, const Frame *frame)
{
    static const char tag[] = "COMMIT";
    return frame->stop - frame->start == HEADER + (Py_ssize_t)sizeof tag
        && memcmp(run + frame->start + HEADER, tag, sizeof tag) == 0;
}

/* Whether a command leaves nothing, by how its tag begins; -1 with an exception. */
static int
is_quiet_tag(State *state, PyObject *quiet, const char *text)
{
    if (quiet == state->quiet) {
        uint32_t number = tag_number(text);
        for (Py_ssize_t at = 0; at < state->tags_end; at++) {
            if (state->tags[at] == number) {
                return 1;
            }
        }
        return 0;
    }
    PyObject *tag = PyBytes_FromStringAndSize(text, TAG_LOOK);
    int answer = tag == NULL ? -1 : PySequence_Contains(quiet, tag);
    Py_XDECREF(tag);
    return answer;
}

/* Whether these are commands that are complete, whose tags can be looked at, and a ReadyForQuery. */
static bool
ends_a_batch(const Skimmed *skimmed, bool parsed)
{
    Py_ssize_t last = skimmed->count - 1;
    for (Py_ssize_t at = parsed; at < last; at++) {
        const Frame *frame = &skimmed->frames[at];
        if (skimmed->tags[at] != 'C' || frame->stop - frame->start < HEADER + TAG_LOOK) {
            return false;
        }
    }
    return last > parsed && skimmed->tags[last] == 'Z';
}

/* Whether one of the commands is ROLLBACK, of a part of the transaction perhaps. */
static bool
rolls_back(const Skimmed *skimmed, bool parsed)
{
    for (Py_ssize_t at = parsed; at < skimmed->count - 1; at++) {
        if (memcmp(PyBytes_AS_STRING(skimmed->run) + skimmed->frames[at].start + HEADER, "ROL", TAG_LOOK) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether what is owed is no more than a mark that a COPY's data has ended. */
static bool
ends_copy(Py_ssize_t mark)
{
    return mark == COPY_END || mark == COPY_END_OF_BATCH;
}

/* Deal with rows on their way, or a ReadyForQuery behind quiet commands; 0 if it is something else. */
static int
answers_plainly(State *state, PyObject *splice, PyObject *server, PyObject *skim, const Skimmed *skimmed)
{
    PyObject *talk = NULL, *ledger = NULL, *queue = NULL, *prepared = NULL, *completions = NULL;
    PyObject *descriptions = NULL, *quiet = NULL, *client = NULL, *clients = NULL;
    const Frame *frame = skimmed->frames;
    const char *run = PyBytes_AS_STRING(skimmed->run);
    Py_ssize_t first, second;
    int done = -1, touched;
    ONLY_IF(is_routine(state, splice));
    NEED(talk, get(state, splice, Splice___talk));
    NEED(ledger, get(state, talk, Conversation__ledger));
    Py_ssize_t count = owed(state, ledger, &queue, &first, &second);
    DO(count);
    if (first == OURS) {
        goto seldom;
    }
    NEED(client, get(state, splice, Splice___client));
    if (skimmed->count) {
        bool parsed = skimmed->tags[0] == '1';
        if (Py_TYPE(talk) != state->following || !ends_a_batch(skimmed, parsed) || count == 0
            || ends_copy(first) || ends_copy(second)) {
            goto seldom;
        }
        /* The last command, and what stands behind it. */
        frame += skimmed->count - 2;
        ONLY_IF(is_quiet_link(state, talk, &touched));
        int status = (unsigned char)run[frame[1].start + HEADER];
        if (touched && (status != 'T' || rolls_back(skimmed, parsed))) {
            goto seldom;
        }
        NEED(prepared, get(state, talk, Following___prepared));
        NEED(completions, get(state, talk, Following___completions));
        NEED(descriptions, get(state, prepared, Prepared__descriptions));
        ONLY_IF(is_empty(state, descriptions, Descriptions__owed));
        if (!parsed) {
            UNLESS_SELDOM(owes_completions(state, completions));
        } else {
            ONLY_IF(is_clients_parse(state, completions));
        }
        NEED(quiet, get(state, talk, Following___quiet));
        for (const Frame *before = skimmed->frames + parsed; before < frame; before++) {
            ONLY_IF(is_quiet_tag(state, quiet, run + before->start + HEADER));
        }
        int is_quiet = is_quiet_tag(state, quiet, run + frame[0].start + HEADER);
        DO(is_quiet);
        if (!is_quiet && (touched || quiet != state->quiet || !is_commit(run, &frame[0]))) {
            goto seldom;
        }
        /* All of it is plain. Who waits for it is told first. */
        DO(put(state, client, skimmed->run));
        if (!is_quiet) {
            /* Ledger.committed. */
            DO(add_one(state, ledger, Ledger__transaction));
            DO(add_one(state, ledger, Ledger__none_new));
        }
        if (parsed) {
            DO(set(state, completions, Completions__sole, Py_None));
        }
        DO(ready(state, ledger, queue, status));
        DO(set(state, talk, Conversation__plain, Py_True));
        int free = 0;
        if (count == 1 && status == 'I') {
            DO(free = is_settled(state, ledger));
        }
        if (free) {
            int keeps = is_true(state, splice, Splice___keeps);
            DO(keeps);
            NEED(clients, get(state, splice, Splice___skim));
            int inside = is_true(state, clients, Skimmer__left);
            DO(inside);
            free = !keeps && !inside;
        }
        if (free) {
            if (skimmed->left || PyBytes_GET_SIZE(skimmed->held)) {
                DO(set(state, splice, Splice___unfinished, Py_True));
            } else {
                DO(let_go(state, splice, talk, server, skim));
            }
        }
    } else if (PyBytes_GET_SIZE(skimmed->run)) {
        DO(put(state, client, skimmed->run));
    }
    state->plain++;
    done = 1;
    goto failed;
seldom:
    done = 0;
failed:
    Py_XDECREF(talk);
    Py_XDECREF(ledger);
    Py_XDECREF(queue);
    Py_XDECREF(prepared);
    Py_XDECREF(completions);
    Py_XDECREF(descriptions);
    Py_XDECREF(quiet);
    Py_XDECREF(client);
    Py_XDECREF(clients);
    return done;
}

PyObject *
from_server(State *state, PyObject *splice, PyObject *data)
{
    PyObject *both[] = {splice, data}, *server, *skim = NULL;
    Skimmed skimmed;
    server = get(state, splice, Splice___server);
    if (server == NULL || server == Py_None) {
        Py_XDECREF(server);
        return in_python(state, Splice___from_server, both, 2);
    }
    skim = get(state, server, ServerConnection__skim);
    int done = skim == NULL ? -1 : cut(state, skim, data, &skimmed);
    if (done > 0) {
        done = enter(state, skim, &skimmed) < 0 ? -1
                                                : answers_plainly(state, splice, server, skim, &skimmed);
        if (done == 0) {
            done = tell(state, call__heard, splice, server, &skimmed);
        }
        forget(&skimmed);
    } else if (done == 0) {
        done = ignore(in_python(state, Splice___from_server, both, 2));
    }
    Py_XDECREF(skim);
    Py_DECREF(server);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *
Splice__from_server(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    State *state = state_of(module);
    return count == 2 ? from_server(state, arguments[0], arguments[1])
                      : in_python(state, Splice___from_server, arguments, count);
}
