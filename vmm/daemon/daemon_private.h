/*
 * daemon_private.h: what the files of vmm/daemon share.
 *
 *   main.c      options, signals, the loop
 *   lock.c      one hvmd for a socket and a store
 *   receive.c   what is taken from a socket at most
 *   listener.c  the socket: accept, authenticate, who is calling
 *   clients.c   a connection, and what ends with it
 *   service.c   the interface io.hvm1: authorise, check the request, dispatch, answer
 *   methods.c   what each method does
 *   jobs.c      long work with progress
 *   events.c    what happens to guests, told to who subscribed
 *   execs.c     commands in guests, on behalf of a connection
 *
 * Threads: all state here belongs to the main thread. Methods of kind WORKER and JOB run in a thread of their own, see
 * their Call only, and are finished in the main thread.
 */
#pragma once

#include "caller.h"
#include "config.h"

#include <gio/gio.h>
#include <gio/gunixfdlist.h>

typedef struct Daemon Daemon;
typedef struct Client Client;
typedef struct Job Job;
typedef struct Exec Exec;
typedef struct Call Call;

struct Daemon {
    DaemonConfig *config;
    Guests *guests;
    GMainLoop *loop;
    GSocketService *service;
    GHashTable *clients; /* set of Client */
    char *guid;
    int socket_lock_fd;  /* the two of lock.c, or -1 */
    int store_lock_fd;
    GQueue pending;      /* of Entry (listener.c): connections that have not authenticated yet */
    GHashTable *threads; /* uid -> number of calls and jobs in threads, of users other than root */
    gint workers;        /* atomic: calls in threads */
    gint leaving;        /* atomic: no new work */
    gboolean activated;  /* systemd holds the socket, and starts us again when it is used */
    gboolean bound;      /* we have made the socket, and remove it */
    unsigned idle_checks;
};

struct Client {
    gatomicrefcount references;
    Daemon *daemon;
    GDBusConnection *connection; /* NULL once closed */
    Caller *caller;
    gboolean in_group;           /* when it connected: of the group that may create guests, or root */
    GHashTable *jobs;            /* id -> Job */
    GHashTable *execs;           /* id -> Exec */
    guint32 last_id;
    GHashTable *outstanding;     /* serial -> weight of calls whose answer has not left yet; this and the next two: GDBus's thread alone */
    unsigned weight;             /* of all of them */
    gboolean dropped;            /* it does not read its answers */
    gboolean subscribed;         /* wants GuestEvent */
    gint events;                 /* atomic: of those, how many have not left yet */
    GMutex lock;                 /* the two below: jobs add to them */
    GPtrArray *ephemeral;        /* UUIDs of the guests that end with this connection */
    gboolean closed;
};

typedef enum { METHOD_MAIN, METHOD_WORKER, METHOD_JOB } MethodKind;

typedef struct {
    const char *name;
    const char *request; /* "name:s wait?:b": keys, `?` optional, and their types */
    MethodKind kind;
    /* Returns the reply (floating a{sv}), or NULL with error; METHOD_MAIN may return NULL without one when it has kept
     * call->invocation and will answer later. */
    GVariant *(*func)(Call *call, GError **error);
} Method;

struct Call {
    Client *client;
    const Method *method;
    GVariant *request;
    GDBusMethodInvocation *invocation; /* NULL once answered */
    GUnixFDList *fds;                  /* of the reply, or NULL */
    Exec *exec;                        /* made by Exec, handed to the client in the main thread */
    Job *job;                          /* of a METHOD_JOB */
    GVariant *reply;
    GError *error;
};

/* Ended by a row with name NULL. */
extern const Method methods[];

/* Makes sure that no other hvmd serves the socket or works on the store, until locks_release() or the process's end. BUSY; HOST. */
gboolean locks_take(Daemon *daemon, GError **error);
void locks_release(Daemon *daemon);

/* Takes the socket, with the locks held. BUSY where somebody else listens on it. Who connects waits until listener_serve(), which may be called again. */
gboolean listener_start(Daemon *daemon, GError **error);
void listener_serve(Daemon *daemon);
/* No more connections; those that are there are closed. Nobody else serves the socket until locks_release(). */
void listener_stop(Daemon *daemon);

Client *client_ref(Client *client);
void client_unref(Client *client);
/* Closes the connection and ends what depends on it. */
void client_close(Client *client);
/* Ties an ephemeral guest to the connection. FALSE where that is closed already. Any thread. */
gboolean client_own_guest(Client *client, const char *uuid);
/* Destroys an ephemeral guest of a connection that is closed. Nobody else will do so: it is tried again where somebody works on the guest, or
 * libvirt does not answer, until hvmd leaves. In a worker. */
void client_end_guest(const Client *client, const char *uuid);

/* Exports io.hvm1 on a connection that is authenticated. */
gboolean service_export(Client *client, GError **error);
/* Answers and forgets the invocation; takes the reply (floating) or the error. Main thread. */
void service_answer(GDBusMethodInvocation *invocation, GVariant *reply, GUnixFDList *fds, const GError *error);

/* What is neither our error nor a cancellation reaches the client as a defect of ours, with its words. */
void service_normalize_error(GError **error);

/* A thread for a call or a job of a user's, who has only so many; BUSY. user_leave() gives it back. Main thread. */
gboolean user_enter(Daemon *daemon, uid_t uid, GError **error);
void user_leave(Daemon *daemon, uid_t uid);

/* Typed reads of a checked request. Strings are valid as long as the request. */
const char *request_string(GVariant *request, const char *key);
gboolean request_bool(GVariant *request, const char *key, gboolean fallback);
guint32 request_uint(GVariant *request, const char *key, guint32 fallback);

/* Starts a job for a call, in a thread; returns {job: u} (floating). */
GVariant *job_start(Call *call, GError **error);
/* Progress of the job that runs in this thread; at most five a second go out. */
void job_progress(Job *job, const char *text, double fraction);
GCancellable *job_cancellable(Job *job);
GVariant *job_wait(Call *call, GError **error);
GVariant *job_cancel(Call *call, GError **error);
/* The connection is gone: bound jobs are cancelled, the others go on to their end. */
void jobs_abandon(Client *client);

/* A GuestsEventFunc; `data` is the Daemon. Any thread. */
void events_on_guest(const char *event, const char *name, const char *uuid, uid_t owner_uid, gpointer daemon);
GVariant *events_subscribe(Call *call, GError **error);

GVariant *exec_start(Call *call, GError **error);
/* In the main thread, after exec_start(): hands it to the client and returns its number; 0 with BUSY, and it is ended, where the
 * client has too many or is gone. */
guint32 exec_register(Client *client, Exec *exec, GError **error);
GVariant *exec_wait(Call *call, GError **error);
GVariant *exec_control(Call *call, GError **error);
void exec_free(gpointer exec);
