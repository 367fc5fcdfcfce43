/*
 * fake_hvmd.h: a small hvmd for the tests of the client and of hvm: it answers as it is told.
 *
 * Input: for each method a canned reply, error, or job. Output: a socket on which the interface of io.hvm1.xml is
 * spoken, and a record of the requests. Exec runs a local process, as whoever runs the test. It has a thread of its
 * own; the functions here may be called from the test's.
 */
#pragma once

#include <gio/gio.h>

typedef struct FakeHvmd FakeHvmd;

/* Listens on a fresh socket in a fresh folder. */
FakeHvmd *fake_new(void);
void fake_free(FakeHvmd *fake);
const char *fake_socket(const FakeHvmd *fake);

/* The method's reply from now on, as text of a GVariant of type a{sv}: "{'version': <'1'>}". For a method which is a
 * job: what WaitJob gives. */
void fake_reply(FakeHvmd *fake, const char *method, const char *text);
/* As fake_reply(), with the value itself (consumed if floating). */
void fake_reply_value(FakeHvmd *fake, const char *method, GVariant *value);
/* The method fails with this code of HVM_ERROR. A job fails at its end. */
void fake_error(FakeHvmd *fake, const char *method, int code, const char *message);
/* Progress that jobs send: text and fraction. */
void fake_progress(FakeHvmd *fake, const char *text, double fraction);
/* Jobs do not end but by CancelJob. */
void fake_hold_jobs(FakeHvmd *fake);
/* The method's connection is closed instead of an answer. */
void fake_hang_up(FakeHvmd *fake, const char *method);

/* The last request of a method, printed, or NULL where there was none; its number of calls. Caller frees. */
char *fake_last_request(FakeHvmd *fake, const char *method);
unsigned fake_calls(FakeHvmd *fake, const char *method);
/* Waits (at most 10 s) until a method was called `count` times. */
void fake_wait_calls(FakeHvmd *fake, const char *method, unsigned count);
/* PATH of what Exec runs. */
void fake_own_path(FakeHvmd *fake, const char *path);
/* A signal of the interface to every connection: its name, and text of an a{sv}. */
void fake_signal(FakeHvmd *fake, const char *name, const char *text);
/* Console gives one end of a socket pair from now on; the test gets the other of the last one, or -1. Caller closes. */
void fake_console(FakeHvmd *fake);
int fake_take_console(FakeHvmd *fake);
/* Closes every connection. */
void fake_close_connections(FakeHvmd *fake);
/* Whether any process that Exec started still runs. */
gboolean fake_has_process(FakeHvmd *fake);
