/*
 * client.h: the connection to hvmd.
 *
 * Input: the path of hvmd's socket; requests as io.hvm1.xml describes them. Output: replies, and errors as the
 * GErrors that hvmd made (HVM_ERROR), without the marks that D-Bus puts on them. A method which is a job is waited for:
 * the caller sees one call that may take long, with progress. No call has a time limit of its own: hvmd has them.
 *
 * Threads: one thread, whose main context is the thread-default one at client_open(); calls iterate it, so its
 * other sources (signals, streams) are served meanwhile. Callbacks come in that thread.
 * Ownership: requests may be floating and are consumed; replies belong to the caller.
 */
#pragma once

#include <gio/gio.h>
#include <gio/gunixfdlist.h>

#define CLIENT_SOCKET "/run/hvm/hvmd.sock"

typedef struct Client Client;

/* What a caller wants to hear of and do about a long call. */
typedef struct {
    /* Progress of a job: one line, as hvmd wrote it (it may quote a guest: escape it); fraction 0 to 1, or -1 if
     * unknown. May be NULL. */
    void (*on_progress)(const char *text, double fraction, gpointer data);
    gpointer data;
    GCancellable *cancellable; /* cancels the job; the call then waits for the job's end. May be NULL */
} ClientWatch;

/* Gets the reply (a{sv}), or NULL and the error. Both are the callee's to read only. */
typedef void (*ClientReplyFunc)(GVariant *reply, const GError *error, gpointer data);

/* The socket: HVM_SOCKET if set, else CLIENT_SOCKET. Static. */
const char *client_default_socket(void);

/* Connects; the caller is its uid (EXTERNAL). HOST where nothing listens there, DENIED, TIMEOUT where something listens
 * that does not greet within 30 s. */
Client *client_open(const char *socket_path, GError **error);
void client_free(Client *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Client, client_free)

/* Calls a method and waits for it, and for its job if it is one. `request` is a{sv}; NULL is an empty one. ret_reply
 * (may be NULL) gets an a{sv}. Errors: hvmd's; HOST where the connection is lost; INTERNAL where hvmd does not keep to
 * io.hvm1.xml; G_IO_ERROR_CANCELLED for a job that was cancelled. */
gboolean client_call(Client *client, const char *method, GVariant *request, const ClientWatch *watch,
                     GVariant **ret_reply, GError **error);

/* As client_call(), for a reply that holds descriptors. ret_fds is never NULL on success. */
gboolean client_call_fds(Client *client, const char *method, GVariant *request, GVariant **ret_reply,
                         GUnixFDList **ret_fds, GError **error);

/* Calls a method that is no job, without waiting; `func` is called once, later, or never if the client is
 * freed before. */
void client_begin(Client *client, const char *method, GVariant *request, ClientReplyFunc func, gpointer data);

/* Sends a request whose answer does not matter. */
void client_send(Client *client, const char *method, GVariant *request);

/* Gets what a signal of the interface carries (a{sv}), or once, last, NULL and why: HOST, the connection has ended. */
typedef void (*ClientSignalFunc)(GVariant *arguments, const GError *error, gpointer data);

/* From now on `func` gets each such signal, until the client is freed. One signal a client. */
void client_watch_signal(Client *client, const char *signal, ClientSignalFunc func, gpointer data);

/* Takes the descriptor which `key` of a reply names out of `fds`: CLOEXEC, owned by the caller. -1 with INTERNAL where
 * there is none. */
int client_take_fd(GVariant *reply, GUnixFDList *fds, const char *key, GError **error);
