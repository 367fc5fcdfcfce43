/*
 * The protocol's bad days: half frames, noise, floods, takeovers; against the parser, against a real agent whose client
 * is this test, and against a channel whose agent is this test.
 */
#include "agent_fixture.h"
#include "channel_private.h"

#include <sys/resource.h>

#define SESSION_A G_GUINT64_CONSTANT(0x1111222233334444)
#define SESSION_B G_GUINT64_CONSTANT(0x5555666677778888)

/* --- frames made by hand --- */

static void add_frame(GByteArray *bytes, guint16 type, guint16 flags, guint32 stream, guint64 session,
                      const void *payload, guint32 length)
{
    g_autofree guint8 *frame = g_malloc0(PROTOCOL_HEADER + length);

    if (length > 0)
        memcpy(frame + PROTOCOL_HEADER, payload, length);
    protocol_seal(frame, type, flags, stream, session, length);
    g_byte_array_append(bytes, frame, PROTOCOL_HEADER + length);
}

static void add_number(GByteArray *bytes, guint16 type, guint16 flags, guint32 stream, guint64 session, guint32 value)
{
    guint8 payload[4];

    protocol_put32(payload, value);
    add_frame(bytes, type, flags, stream, session, payload, sizeof(payload));
}

static void add_zeros(GByteArray *bytes, guint length)
{
    guint before = bytes->len;

    g_byte_array_set_size(bytes, before + length);
    memset(bytes->data + before, 0, length);
}

static void add_hello(GByteArray *bytes, guint64 session)
{
    guint8 payload[PROTOCOL_HELLO_LENGTH] = {PROTOCOL_VERSION};

    add_zeros(bytes, PROTOCOL_PADDING);
    add_frame(bytes, PROTOCOL_HELLO, 0, 0, session, payload, sizeof(payload));
}

static void add_exec(GByteArray *bytes, guint32 stream, guint64 session, const char *script)
{
    guint8 head[PROTOCOL_EXEC_HEAD] = {0};
    g_autoptr(GByteArray) payload = g_byte_array_new();

    protocol_put32(head + 4, getuid());
    protocol_put32(head + 8, getgid());
    protocol_put32(head + 20, 3);
    g_byte_array_append(payload, head, sizeof(head));
    g_byte_array_append(payload, (const guint8 *)"\0\0\0\0\0sh\0-c", 11);
    g_byte_array_append(payload, (const guint8 *)script, (guint)strlen(script) + 1);
    add_frame(bytes, PROTOCOL_EXEC, 0, stream, session, payload->data, payload->len);
}

/* --- the parser --- */

static void feed(ProtocolParser *parser, const guint8 *bytes, gsize length)
{
    size_t room;
    uint8_t *to = protocol_parser_space(parser, &room);

    g_assert_cmpuint(room, >=, length);
    memcpy(to, bytes, length);
    protocol_parser_filled(parser, length);
}

static void test_crc(void)
{
    guint8 bytes[100];
    guint32 whole;

    /* The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms. */
    g_assert_cmphex(protocol_crc32(0, "123456789", 9), ==, 0xcbf43926);
    for (guint i = 0; i < sizeof(bytes); i++)
        bytes[i] = (guint8)g_test_rand_int();
    whole = protocol_crc32(0, bytes, sizeof(bytes));
    for (guint cut = 0; cut <= sizeof(bytes); cut++)
        g_assert_cmphex(protocol_crc32(protocol_crc32(0, bytes, cut), bytes + cut, sizeof(bytes) - cut), ==, whole);
}

static void test_bytewise(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autofree ProtocolParser *parser = g_new(ProtocolParser, 1);
    ProtocolFrame frame;
    guint n_frames = 0;

    add_hello(bytes, SESSION_A);
    add_number(bytes, PROTOCOL_SIGNAL, 0, 7, SESSION_A, 15);
    add_frame(bytes, PROTOCOL_EOF, 0, 7, SESSION_A, NULL, 0);
    protocol_parser_init(parser, PROTOCOL_HELLO, PROTOCOL_ZEROS);
    for (guint i = 0; i < bytes->len; i++) {
        ProtocolResult result;

        feed(parser, bytes->data + i, 1);
        while ((result = protocol_parser_next(parser, &frame)) != PROTOCOL_NEED_MORE) {
            g_assert_cmpint(result, ==, PROTOCOL_FRAME);
            n_frames++;
            if (n_frames != 2)
                continue;
            g_assert_cmpuint(frame.type, ==, PROTOCOL_SIGNAL);
            g_assert_cmpuint(frame.stream, ==, 7);
            g_assert_cmphex(frame.session, ==, SESSION_A);
            g_assert_cmpuint(protocol_get32(frame.payload), ==, 15);
        }
    }
    g_assert_cmpuint(n_frames, ==, 3);
}

/* Feeds in pieces of random size; the number of HELLO frames, the last one's session in ret_session. */
static guint count_hellos(ProtocolParser *parser, const GByteArray *bytes, guint64 *ret_session)
{
    ProtocolResult result;
    ProtocolFrame frame;
    guint n_hellos = 0;

    for (guint at = 0, step; at < bytes->len; at += step) {
        step = MIN((guint)g_test_rand_int_range(1, 20000), bytes->len - at);
        feed(parser, bytes->data + at, step);
        while ((result = protocol_parser_next(parser, &frame)) != PROTOCOL_NEED_MORE) {
            if (result != PROTOCOL_FRAME || frame.type != PROTOCOL_HELLO)
                continue;
            n_hellos++;
            *ret_session = frame.session;
        }
    }
    return n_hellos;
}

/* Wherever an earlier client stopped, the next HELLO is found; and whatever the frame held. */
static void test_half_frames(void)
{
    g_autofree guint8 *payload = g_malloc0(PROTOCOL_PAYLOAD_MAX);
    g_autofree ProtocolParser *parser = g_new(ProtocolParser, 1);

    for (guint kind = 0; kind < 3; kind++) {
        g_autoptr(GByteArray) data = g_byte_array_new();

        if (kind == 1)
            memset(payload, 0xff, PROTOCOL_PAYLOAD_MAX);
        if (kind == 2)
            protocol_seal(payload, PROTOCOL_HELLO, 0, 0, SESSION_A, PROTOCOL_HELLO_LENGTH);
        add_frame(data, PROTOCOL_DATA, 0, 1, SESSION_A, payload, PROTOCOL_PAYLOAD_MAX);
        for (guint cut = 0; cut < data->len; cut += cut < 80 ? 1 : 1009) {
            g_autoptr(GByteArray) bytes = g_byte_array_new();
            guint64 session = 0;

            add_hello(bytes, SESSION_A);
            g_byte_array_append(bytes, data->data, cut);
            add_hello(bytes, SESSION_B);
            protocol_parser_init(parser, PROTOCOL_HELLO, PROTOCOL_ZEROS);
            g_assert_cmpuint(count_hellos(parser, bytes, &session), ==, 2);
            g_assert_cmphex(session, ==, SESSION_B);
        }
    }
}

/* What a client sends to a command can look like anything, and an agent may begin to read anywhere. */
static void test_forged_hello(void)
{
    g_autofree ProtocolParser *parser = g_new(ProtocolParser, 1);
    g_autoptr(GByteArray) forged = g_byte_array_new();
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    guint64 session = 0;

    add_hello(forged, SESSION_B);
    for (guint at = 0; at < forged->len; at += PROTOCOL_PAYLOAD_MAX)
        add_frame(bytes, PROTOCOL_DATA, 0, 0, 0, forged->data + at, MIN(PROTOCOL_PAYLOAD_MAX, forged->len - at));
    for (guint start = 0; start < 100; start++) {
        protocol_parser_init(parser, PROTOCOL_HELLO, PROTOCOL_ZEROS);
        g_assert_cmpuint(count_hellos(parser, bytes, &session), ==, 0);
        g_byte_array_remove_range(bytes, 0, 1);
    }
}

static void test_exec_parse(void)
{
    g_autoptr(GByteArray) frame = g_byte_array_new();
    const guint8 *payload;
    ProtocolExec exec;
    gsize length;

    add_exec(frame, 1, SESSION_A, "true");
    payload = frame->data + PROTOCOL_HEADER;
    length = frame->len - PROTOCOL_HEADER;
    g_assert_true(protocol_exec_parse(payload, length, &exec));
    g_assert_cmpstr(exec.argv, ==, "sh");
    for (gsize cut = 0; cut < length; cut++) {
        g_autofree guint8 *copy = g_memdup2(payload, cut); /* its own block, so that a sanitizer sees what is read */

        g_assert_false(protocol_exec_parse(copy, cut, &exec));
    }
    for (gsize field = 16; field < PROTOCOL_EXEC_HEAD; field += 4) {
        g_autofree guint8 *copy = g_memdup2(payload, length);

        protocol_put32(copy + field, G_MAXUINT32);
        g_assert_false(protocol_exec_parse(copy, length, &exec));
        protocol_put32(copy + field, field == 20 ? 0 : 100);
        g_assert_false(protocol_exec_parse(copy, length, &exec));
    }
}

/* --- a real agent, whose client is the test --- */

typedef struct {
    GPid agent;
    int fd;
    ProtocolParser parser;
} Client;

static void client_set_up(Client *client, G_GNUC_UNUSED gconstpointer data)
{
    g_autofree char *program = agent_program();
    char *arguments[] = {program, (char *)"--fd", NULL, (char *)"--power-off-program", (char *)"/bin/false", NULL};
    g_autofree char *number = NULL;
    int ends[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), ==, 0);
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    number = g_strdup_printf("%d", ends[1]);
    arguments[2] = number;
    client->agent = agent_spawn(arguments, NULL, NULL);
    client->fd = ends[0];
    close(ends[1]);
    protocol_parser_init(&client->parser, PROTOCOL_HELLO_ACK, 0);
}

static void client_tear_down(Client *client, G_GNUC_UNUSED gconstpointer data)
{
    int status;

    close(client->fd);
    g_assert_cmpint(waitpid(client->agent, &status, 0), ==, client->agent); /* it ends with its descriptor */
    g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void client_send(Client *client, const GByteArray *bytes)
{
    for (guint sent = 0; sent < bytes->len;) {
        gssize n = send(client->fd, bytes->data + sent, bytes->len - sent, MSG_NOSIGNAL);

        g_assert_cmpint(n, >, 0);
        sent += (guint)n;
    }
}

/* The next frame of the agent; what is out of step is skipped as hvmd does. */
static ProtocolFrame client_receive(Client *client)
{
    ProtocolFrame frame;

    while (protocol_parser_next(&client->parser, &frame) != PROTOCOL_FRAME) {
        struct pollfd row = {.fd = client->fd, .events = POLLIN};
        size_t room;
        uint8_t *to = protocol_parser_space(&client->parser, &room);
        gssize n;

        if (poll(&row, 1, ANSWER_MS) == 0)
            g_error("the agent is silent");
        n = recv(client->fd, to, room, 0);
        g_assert_cmpint(n, >, 0);
        protocol_parser_filled(&client->parser, (size_t)n);
    }
    return frame;
}

static void client_hello(Client *client, guint64 session)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    ProtocolFrame frame;

    add_hello(bytes, session);
    client_send(client, bytes);
    do {
        client->parser.in_step = false;
        frame = client_receive(client);
    } while (frame.session != session);
    g_assert_cmpuint(frame.type, ==, PROTOCOL_HELLO_ACK);
    g_assert_cmpuint(frame.length, ==, PROTOCOL_HELLO_LENGTH);
    g_assert_cmpuint(protocol_get32(frame.payload), ==, PROTOCOL_VERSION);
}

/* Runs one command to its end in a session that is open. */
static void client_check(Client *client, guint32 id, guint64 session)
{
    static const guint16 expected[] = {PROTOCOL_DATA, PROTOCOL_EOF, PROTOCOL_EOF, PROTOCOL_EXIT};
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    add_exec(bytes, id, session, "echo fine; exit 6");
    client_send(client, bytes);
    for (guint i = 0; i < G_N_ELEMENTS(expected); i++) {
        ProtocolFrame frame = client_receive(client);

        if (frame.type == PROTOCOL_CLOSE) /* of its input, if that is seen before its end is */
            frame = client_receive(client);
        g_assert_cmpuint(frame.type, ==, expected[i]);
        g_assert_cmpuint(frame.stream, ==, id);
        g_assert_cmphex(frame.session, ==, session);
        if (frame.type == PROTOCOL_DATA)
            g_assert_cmpmem(frame.payload, frame.length, "fine\n", 5);
        if (frame.type == PROTOCOL_EXIT)
            g_assert_cmpuint(protocol_get32(frame.payload + 4), ==, 6);
    }
}

static void test_agent_noise(Client *client, G_GNUC_UNUSED gconstpointer data)
{
    for (guint64 session = 1; session <= 20; session++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        guint length = (guint)g_test_rand_int_range(1, 100000);

        for (guint i = 0; i < length; i++) {
            guint8 byte = (guint8)g_test_rand_int();

            g_byte_array_append(bytes, &byte, 1);
        }
        client_send(client, bytes);
        client_hello(client, session);
        client_check(client, 1, session);
    }
}

static void expect_error(Client *client)
{
    ProtocolFrame frame;

    do {
        frame = client_receive(client);
    } while (frame.type == PROTOCOL_CREDIT);
    g_assert_cmpuint(frame.type, ==, PROTOCOL_ERROR);
    g_assert_cmpuint(frame.length, >, 0);
}

/* Each of these puts the agent out of step; it says so, runs nothing, and comes back with a HELLO. */
static void test_agent_malformed(Client *client, G_GNUC_UNUSED gconstpointer data)
{
    static const guint8 zeros[8];
    guint64 session = 100;

    for (guint kind = 0; kind < 14; kind++, session++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();

        client_hello(client, session);
        switch (kind) {
        case 0: /* wrong crc */
            add_frame(bytes, PROTOCOL_POWER_OFF, 0, 0, session, NULL, 0);
            bytes->data[24] ^= 1;
            break;
        case 1: /* too long */
            add_frame(bytes, PROTOCOL_EOF, 0, 1, session, NULL, 0);
            protocol_put32(bytes->data + 4, PROTOCOL_PAYLOAD_MAX + 1);
            break;
        case 2: /* bad magic */
            add_frame(bytes, PROTOCOL_EOF, 0, 1, session, NULL, 0);
            bytes->data[0] = 'x';
            break;
        case 3: /* a command that never was */
            add_frame(bytes, PROTOCOL_EOF, 0, 1, session, NULL, 0);
            break;
        case 4: /* a malformed EXEC */
            add_frame(bytes, PROTOCOL_EXEC, 0, 1, session, zeros, sizeof(zeros));
            break;
        case 5: /* an interrupted EXEC */
            add_frame(bytes, PROTOCOL_EXEC, PROTOCOL_MORE, 1, session, zeros, sizeof(zeros));
            add_frame(bytes, PROTOCOL_EOF, 0, 1, session, NULL, 0);
            break;
        case 6: /* an endless EXEC */
            for (guint i = 0; i < PROTOCOL_EXEC_MAX / sizeof(zeros) / 1000 + 1; i++) {
                static const guint8 piece[8000];

                add_frame(bytes, PROTOCOL_EXEC, PROTOCOL_MORE, 1, session, piece, sizeof(piece));
            }
            break;
        case 7: /* a number twice */
            add_exec(bytes, 1, session, "exec sleep 1000");
            add_exec(bytes, 1, session, "exec sleep 1000");
            break;
        case 8: /* more data than was allowed */
            add_exec(bytes, 1, session, "exec sleep 1000");
            for (guint i = 0; i <= 2 * PROTOCOL_WINDOW / 32000; i++) {
                static const guint8 piece[32000];

                add_frame(bytes, PROTOCOL_DATA, 0, 1, session, piece, sizeof(piece));
            }
            break;
        case 9: /* credit for nothing */
            add_exec(bytes, 1, session, "exec sleep 1000");
            add_number(bytes, PROTOCOL_CREDIT, 1, 1, session, 1);
            break;
        case 10: /* a signal that is none */
            add_exec(bytes, 1, session, "exec sleep 1000");
            add_number(bytes, PROTOCOL_SIGNAL, 0, 1, session, 65);
            break;
        case 11: /* data for an output */
            add_exec(bytes, 1, session, "exec sleep 1000");
            add_frame(bytes, PROTOCOL_DATA, 1, 1, session, zeros, 1);
            break;
        case 12: /* an unknown type */
            add_frame(bytes, 999, 0, 0, session, NULL, 0);
            break;
        case 13: /* a descriptor that is none */
            add_exec(bytes, 1, session, "exec sleep 1000");
            add_frame(bytes, PROTOCOL_CLOSE, 3, 1, session, NULL, 0);
            break;
        }
        add_exec(bytes, 1000, session, "echo must not run");
        client_send(client, bytes);
        expect_error(client);
    }
    client_hello(client, session);
    client_check(client, 1, session);
}

static void test_agent_other_session(Client *client, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    client_hello(client, SESSION_A);
    add_exec(bytes, 1, SESSION_B, "echo must not run");
    add_frame(bytes, PROTOCOL_POWER_OFF, 0, 0, SESSION_B, NULL, 0);
    client_send(client, bytes);
    client_check(client, 1, SESSION_A);
    client_hello(client, SESSION_A); /* once more, as hvmd repeats it: the session goes on, and its numbers */
    client_check(client, 2, SESSION_A);
}

/* A second client: the commands of the first are gone when it is answered, and nothing of them is left to read. */
static void test_agent_takeover(Client *client, G_GNUC_UNUSED gconstpointer data)
{
    g_autofree char *folder = g_dir_make_tmp("hvm-test-agent-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(folder, "pids", NULL);
    g_autofree char *script = g_strdup_printf("trap '' HUP TERM; sleep 1000 & echo $$ $! >%s.new; mv %s.new %s; yes",
                                              path, path, path);
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GByteArray) half = g_byte_array_new();
    g_autofree char *pids = NULL;
    int leader, child;

    client_hello(client, SESSION_A);
    add_exec(bytes, 1, SESSION_A, script);
    client_send(client, bytes);
    while (!g_file_test(path, G_FILE_TEST_EXISTS))
        g_usleep(5000);
    g_assert_true(g_file_get_contents(path, &pids, NULL, NULL));
    g_assert_cmpint(sscanf(pids, "%d %d", &leader, &child), ==, 2);
    add_frame(half, PROTOCOL_DATA, 0, 1, SESSION_A, pids, (guint32)strlen(pids));
    g_byte_array_set_size(half, half->len - 1);
    client_send(client, half);
    protocol_parser_init(&client->parser, PROTOCOL_HELLO_ACK, 0); /* a new client has read nothing */
    client_hello(client, SESSION_B);
    wait_gone(leader);
    wait_gone(child);
    client_check(client, 1, SESSION_B);
    g_unlink(path);
    g_rmdir(folder);
}

/* --- a channel, whose agent is the test --- */

typedef struct {
    char *folder;
    char *path;
    int listener;
    int fd;
    guint64 session; /* of the channel */
    Channel *channel;
    GError *error;
} Guest;

static void guest_read(Guest *guest, void *to, gsize length)
{
    for (gsize have = 0; have < length;) {
        gssize n = recv(guest->fd, (guint8 *)to + have, length - have, 0);

        g_assert_cmpint(n, >, 0);
        have += (gsize)n;
    }
}

/* The next frame of hvmd into `to` (PROTOCOL_FRAME_MAX bytes); its type. */
static guint16 guest_frame(Guest *guest, guint8 *to)
{
    guest_read(guest, to, PROTOCOL_HEADER);
    g_assert_cmphex(protocol_get32(to), ==, PROTOCOL_MAGIC);
    g_assert_cmphex(protocol_get64(to + 16), ==, guest->session);
    guest_read(guest, to + PROTOCOL_HEADER, protocol_get32(to + 4));
    return protocol_get16(to + 8);
}

static void guest_send(Guest *guest, const GByteArray *bytes)
{
    for (guint sent = 0; sent < bytes->len;) {
        gssize n = send(guest->fd, bytes->data + sent, bytes->len - sent, MSG_NOSIGNAL);

        if (n < 0)
            return; /* the channel is closed: the test looks at that */
        sent += (guint)n;
    }
}

static gpointer open_in_thread(gpointer data)
{
    Guest *guest = data;

    return channel_open(guest->path, "g", ANSWER_MS, NULL, &guest->error);
}

/* Answers with `answer` version of the protocol, after an old session's rest. */
static void guest_open(Guest *guest, guint32 version)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autofree guint8 *hello = g_malloc(PROTOCOL_PADDING + PROTOCOL_HEADER + PROTOCOL_HELLO_LENGTH);
    guint8 payload[PROTOCOL_HELLO_LENGTH] = {0};
    GThread *thread = g_thread_new("open", open_in_thread, guest);

    guest->fd = accept(guest->listener, NULL, NULL);
    g_assert_cmpint(guest->fd, >=, 0);
    guest_read(guest, hello, PROTOCOL_PADDING + PROTOCOL_HEADER + PROTOCOL_HELLO_LENGTH);
    for (guint i = 0; i < PROTOCOL_PADDING; i++)
        g_assert_cmpuint(hello[i], ==, 0);
    g_assert_cmpuint(protocol_get16(hello + PROTOCOL_PADDING + 8), ==, PROTOCOL_HELLO);
    guest->session = protocol_get64(hello + PROTOCOL_PADDING + 16);
    g_assert_cmphex(guest->session, !=, 0);

    protocol_put32(payload, version);
    add_frame(bytes, PROTOCOL_HELLO_ACK, 0, 0, guest->session + 1, payload, sizeof(payload)); /* an old one's answer */
    add_frame(bytes, PROTOCOL_DATA, 1, 1, guest->session + 1, "old", 3);
    add_frame(bytes, PROTOCOL_DATA, 1, 1, guest->session + 1, "half a frame", 12);
    g_byte_array_set_size(bytes, bytes->len - 5);
    add_frame(bytes, PROTOCOL_HELLO_ACK, 0, 0, guest->session, payload, sizeof(payload));
    guest_send(guest, bytes);
    guest->channel = g_thread_join(thread);
}

static void guest_set_up(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    guest->folder = g_dir_make_tmp("hvm-test-agent-XXXXXX", NULL);
    guest->path = g_build_filename(guest->folder, "agent.sock", NULL);
    guest->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    guest->fd = -1;
    g_strlcpy(address.sun_path, guest->path, sizeof(address.sun_path));
    g_assert_cmpint(bind(guest->listener, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(guest->listener, 8), ==, 0);
}

static void guest_close(Guest *guest)
{
    g_clear_pointer(&guest->channel, channel_free);
    if (guest->fd >= 0)
        close(guest->fd);
    guest->fd = -1;
}

static void guest_tear_down(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    guest_close(guest);
    close(guest->listener);
    g_clear_error(&guest->error);
    g_unlink(guest->path);
    g_rmdir(guest->folder);
    g_free(guest->path);
    g_free(guest->folder);
}

/* Everything that a guest may not send, one by one, to a channel with one command, number 1. */
static gboolean add_breach(GByteArray *bytes, guint kind, guint64 session)
{
    static const guint8 block[PROTOCOL_PAYLOAD_MAX];
    guint8 exit[8] = {0};

    switch (kind) {
    case 0:
        add_frame(bytes, PROTOCOL_DATA, 1, 1, session, "x", 1);
        bytes->data[24] ^= 1;
        return TRUE;
    case 1:
        add_frame(bytes, PROTOCOL_DATA, 1, 1, session, "x", 1);
        protocol_put32(bytes->data + 4, G_MAXUINT32);
        return TRUE;
    case 2:
        g_byte_array_append(bytes, (const guint8 *)"random noise, no frame", 22);
        return TRUE;
    case 3:
        add_zeros(bytes, 8);
        return TRUE;
    case 4:
        add_frame(bytes, PROTOCOL_DATA, 1, 2, session, "x", 1); /* a command that never was */
        return TRUE;
    case 5:
        add_frame(bytes, PROTOCOL_DATA, 1, 0, session, "x", 1);
        return TRUE;
    case 6:
        add_frame(bytes, PROTOCOL_DATA, 1, 1, session + 1, "x", 1); /* another session */
        return TRUE;
    case 7:
        add_frame(bytes, PROTOCOL_DATA, 0, 1, session, "x", 1); /* to its input */
        return TRUE;
    case 8:
        add_frame(bytes, PROTOCOL_DATA, 3, 1, session, "x", 1);
        return TRUE;
    case 9:
        add_frame(bytes, PROTOCOL_DATA, 65535, 1, session, "x", 1);
        return TRUE;
    case 10:
        add_frame(bytes, PROTOCOL_DATA, 1, 1, session, NULL, 0);
        return TRUE;
    case 11: /* more than the window: nobody reads */
        for (guint i = 0; i <= PROTOCOL_WINDOW / PROTOCOL_PAYLOAD_MAX * 4; i++)
            add_frame(bytes, PROTOCOL_DATA, 1, 1, session, block, PROTOCOL_PAYLOAD_MAX);
        return TRUE;
    case 12:
        add_frame(bytes, PROTOCOL_EOF, 1, 1, session, NULL, 0);
        add_frame(bytes, PROTOCOL_DATA, 1, 1, session, "x", 1); /* after its end */
        return TRUE;
    case 13:
        add_frame(bytes, PROTOCOL_EOF, 0, 1, session, NULL, 0);
        return TRUE;
    case 14:
        add_number(bytes, PROTOCOL_CREDIT, 0, 1, session, 1); /* for what was not sent */
        return TRUE;
    case 15:
        add_number(bytes, PROTOCOL_CREDIT, 0, 1, session, G_MAXUINT32);
        return TRUE;
    case 16:
        add_number(bytes, PROTOCOL_CREDIT, 1, 1, session, 1);
        return TRUE;
    case 17:
        add_frame(bytes, PROTOCOL_CLOSE, 1, 1, session, NULL, 0);
        return TRUE;
    case 18:
        add_frame(bytes, PROTOCOL_EXIT, 0, 1, session, exit, 4);
        return TRUE;
    case 19:
        protocol_put32(exit + 4, 256);
        add_frame(bytes, PROTOCOL_EXIT, 0, 1, session, exit, 8);
        return TRUE;
    case 20:
        protocol_put32(exit, 7);
        add_frame(bytes, PROTOCOL_EXIT, 0, 1, session, exit, 8);
        return TRUE;
    case 21:
        add_frame(bytes, PROTOCOL_EXIT, 0, 1, session, exit, 8);
        add_frame(bytes, PROTOCOL_DATA, 1, 1, session, "x", 1); /* after its exit */
        return TRUE;
    case 22:
        add_frame(bytes, PROTOCOL_POWER_OFF_ACK, 0, 0, session, NULL, 0);
        return TRUE;
    case 23:
        for (guint i = 0; i < 1000; i++)
            add_frame(bytes, PROTOCOL_HELLO_ACK, 0, 0, session, (guint8[]){PROTOCOL_VERSION, 0, 0, 0, 0, 0, 0, 0}, 8);
        return TRUE;
    case 24:
        add_frame(bytes, PROTOCOL_EXEC, 0, 2, session, block, 100); /* hvmd's own */
        return TRUE;
    case 25:
        add_frame(bytes, 65535, 65535, 1, session, block, 100);
        return TRUE;
    case 26:
        add_frame(bytes, PROTOCOL_ERROR, 0, 0, session, "out of step \033[31m", 17);
        return TRUE;
    default:
        return FALSE;
    }
}

static void test_channel_breaches(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    guint kind;

    for (kind = 0;; kind++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        g_autofree guint8 *frame = g_malloc(PROTOCOL_FRAME_MAX);
        g_autoptr(Run) run = NULL;

        guest_open(guest, PROTOCOL_VERSION);
        g_assert_no_error(guest->error);
        run = run_start(guest->channel, "program");
        g_assert_cmpuint(guest_frame(guest, frame), ==, PROTOCOL_EXEC);
        if (!add_breach(bytes, kind, guest->session)) {
            guest_close(guest);
            break;
        }
        guest_send(guest, bytes);
        wait_end(run);
        if (kind != 21) { /* there it had ended before */
            g_assert_cmpint(run->ended.end, ==, CHANNEL_LOST);
            g_assert_true(g_str_has_prefix(run->ended.reason, "the agent "));
        }
        if (kind == 26)
            g_assert_cmpstr(run->ended.reason, ==, "the agent lost step: out of step \\x1b[31m");
        while (channel_is_open(guest->channel))
            g_usleep(1000);
        guest_close(guest);
    }
    g_assert_cmpuint(kind, ==, 27);
}

static void test_channel_version(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    guest_open(guest, PROTOCOL_VERSION + 1);
    g_assert_null(guest->channel);
    g_assert_error(guest->error, HVM_ERROR, HVM_ERROR_AGENT);
    g_assert_cmpstr(guest->error->message, ==, "guest 'g': the agent speaks version 2 of the protocol, hvmd speaks 1");
}

static void test_channel_noise(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    for (guint i = 0; i < 20; i++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        guint length = (guint)g_test_rand_int_range(8, 100000);

        for (guint k = 0; k < length; k++) {
            guint8 byte = (guint8)g_test_rand_int();

            g_byte_array_append(bytes, &byte, 1);
        }
        guest_open(guest, PROTOCOL_VERSION);
        guest_send(guest, bytes);
        while (channel_is_open(guest->channel))
            g_usleep(1000);
        guest_close(guest);
    }
}

static void test_channel_cut(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(Run) run = NULL;

    guest_open(guest, PROTOCOL_VERSION);
    run = run_start(guest->channel, "program");
    add_frame(bytes, PROTOCOL_DATA, 1, 1, guest->session, "whole", 5);
    add_frame(bytes, PROTOCOL_DATA, 1, 1, guest->session, "half", 4);
    g_byte_array_set_size(bytes, bytes->len - 2);
    guest_send(guest, bytes);
    close(guest->fd);
    guest->fd = -1;
    run_talk(run, NULL, 0);
    assert_end(run, CHANNEL_LOST, 0);
    assert_bytes(run->output, "whole");
}

/* A guest that never answers: the table of commands is full, and the queue to it has an end. */
static void test_channel_limits(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    g_autofree char *large = g_strnfill(PROTOCOL_EXEC_MAX / 2, 'x');
    const char *argv[] = {"program", NULL}, *large_argv[] = {"program", large, NULL};
    ChannelCommand command = own_command(argv);
    g_autoptr(GPtrArray) runs = g_ptr_array_new_with_free_func((GDestroyNotify)run_free);
    g_autoptr(GError) error = NULL;
    ChannelStreams streams;

    guest_open(guest, PROTOCOL_VERSION);
    command.pty = TRUE; /* fewer descriptors */
    for (guint i = 0; i < PROTOCOL_STREAMS_MAX; i++)
        g_ptr_array_add(runs, run_start_command(guest->channel, &command));
    g_assert_cmpuint(channel_exec(guest->channel, &command, &streams, on_end, NULL, &error), ==, 0);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_BUSY);
    g_clear_error(&error);
    while (channel_signal(guest->channel, 1, SIGTERM, &error))
        continue;
    g_assert_error(error, HVM_ERROR, HVM_ERROR_BUSY);
    g_clear_error(&error);
    guest_close(guest);
    g_ptr_array_set_size(runs, 0);

    guest_open(guest, PROTOCOL_VERSION);
    command.argv = large_argv;
    for (;;) {
        Run *run = g_new0(Run, 1);

        run->id = channel_exec(guest->channel, &command, &run->streams, on_end, &run->ended, &error);
        if (run->id == 0) {
            g_free(run);
            break;
        }
        run->output = g_byte_array_new();
        run->errors = g_byte_array_new();
        g_ptr_array_add(runs, run);
    }
    g_assert_error(error, HVM_ERROR, HVM_ERROR_BUSY);
    g_assert_cmpuint(runs->len, <, 16);
    guest_close(guest);
}

static void test_channel_failed_exit(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    static const guint8 exit[] = {PROTOCOL_EXIT_FAILED, 0, 0, 0, 0, 0, 0, 0, 'n', 'o', '\n'};
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(Run) run = NULL;

    guest_open(guest, PROTOCOL_VERSION);
    run = run_start(guest->channel, "program");
    add_frame(bytes, PROTOCOL_DATA, 1, 1, guest->session, "some", 4);
    add_frame(bytes, PROTOCOL_EXIT, 0, 1, guest->session, exit, sizeof(exit));
    guest_send(guest, bytes);
    run_talk(run, NULL, 0);
    assert_end(run, CHANNEL_LOST, 0);
    g_assert_cmpstr(run->ended.reason, ==, "no\\x0a");
    assert_bytes(run->output, "some");
    g_assert_true(channel_is_open(guest->channel));
}

/* Without a descriptor to wake its thread by, a channel could not be freed. */
static void test_no_descriptor(void)
{
    g_autoptr(GError) error = NULL;
    struct rlimit limit, before;
    int ends[2], next;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), ==, 0);
    next = dup(ends[0]);
    close(next);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &before), ==, 0);
    limit = before;
    limit.rlim_cur = (rlim_t)next;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    g_assert_null(channel_new("g", ends[0], &error));
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &before), ==, 0);
    g_assert_error(error, HVM_ERROR, HVM_ERROR_HOST);
    g_assert_cmpint(dup(ends[1]), ==, ends[0]); /* it was closed */
    close(ends[0]);
    close(ends[1]);
}

static void test_open_fails(Guest *guest, G_GNUC_UNUSED gconstpointer data)
{
    g_autoptr(GCancellable) cancellable = g_cancellable_new();
    g_autofree char *link = g_strconcat(guest->path, ".link", NULL);
    g_autoptr(GError) error = NULL;
    GThread *thread;

    g_assert_null(channel_open("/no/such/socket", "g", 100, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_TIMEOUT);
    g_assert_cmpstr(error->message, ==, "the agent of guest 'g' did not answer within 0.1 s");
    g_clear_error(&error);
    g_assert_null(channel_open(guest->path, "g", 100, NULL, &error)); /* it is there, and silent */
    g_assert_error(error, HVM_ERROR, HVM_ERROR_TIMEOUT);
    g_clear_error(&error);
    close(accept(guest->listener, NULL, NULL));
    g_assert_cmpint(symlink(guest->path, link), ==, 0); /* a link to a socket is not a socket of QEMU's */
    g_assert_null(channel_open(link, "g", 100, NULL, &error));
    g_assert_error(error, HVM_ERROR, HVM_ERROR_AGENT);
    g_clear_error(&error);
    unlink(link);
    g_cancellable_cancel(cancellable);
    g_assert_null(channel_open(guest->path, "g", ANSWER_MS, cancellable, &error));
    g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    close(accept(guest->listener, NULL, NULL));

    thread = g_thread_new("open", open_in_thread, guest);
    guest->fd = accept(guest->listener, NULL, NULL);
    close(guest->fd); /* before it was answered */
    guest->fd = -1;
    g_assert_null(g_thread_join(thread));
    g_assert_error(guest->error, HVM_ERROR, HVM_ERROR_AGENT);
}

#define AGENT(name, function) \
    g_test_add("/agent-protocol/agent/" name, Client, NULL, client_set_up, function, client_tear_down)
#define CHANNEL(name, function) \
    g_test_add("/agent-protocol/channel/" name, Guest, NULL, guest_set_up, function, guest_tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/agent-protocol/crc", test_crc);
    g_test_add_func("/agent-protocol/no-descriptor", test_no_descriptor);
    g_test_add_func("/agent-protocol/bytewise", test_bytewise);
    g_test_add_func("/agent-protocol/half-frames", test_half_frames);
    g_test_add_func("/agent-protocol/forged-hello", test_forged_hello);
    g_test_add_func("/agent-protocol/exec-parse", test_exec_parse);
    AGENT("noise", test_agent_noise);
    AGENT("malformed", test_agent_malformed);
    AGENT("other-session", test_agent_other_session);
    AGENT("takeover", test_agent_takeover);
    CHANNEL("breaches", test_channel_breaches);
    CHANNEL("version", test_channel_version);
    CHANNEL("noise", test_channel_noise);
    CHANNEL("cut", test_channel_cut);
    CHANNEL("limits", test_channel_limits);
    CHANNEL("failed-exit", test_channel_failed_exit);
    CHANNEL("open-fails", test_open_fails);
    return g_test_run();
}
