#include "protocol.h"

#include <string.h>

uint16_t protocol_get16(const uint8_t *from)
{
    return (uint16_t)(from[0] | from[1] << 8);
}

uint32_t protocol_get32(const uint8_t *from)
{
    return protocol_get16(from) | (uint32_t)protocol_get16(from + 2) << 16;
}

uint64_t protocol_get64(const uint8_t *from)
{
    return protocol_get32(from) | (uint64_t)protocol_get32(from + 4) << 32;
}

void protocol_put16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

void protocol_put32(uint8_t *to, uint32_t value)
{
    protocol_put16(to, (uint16_t)value);
    protocol_put16(to + 2, (uint16_t)(value >> 16));
}

void protocol_put64(uint8_t *to, uint64_t value)
{
    protocol_put32(to, (uint32_t)value);
    protocol_put32(to + 4, (uint32_t)(value >> 32));
}

/* Eight bytes at a time ("slicing-by-8", Kounavis and Berry 2005): a table look-up per byte would be slower than the
 * port. Filled before main(), so that any thread may read it. */
static uint32_t crc_table[8][256];

__attribute__((constructor)) static void crc_fill(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;

        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
        crc_table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 0xff];
}

uint32_t protocol_crc32(uint32_t crc, const void *data, size_t length)
{
    const uint8_t *byte = data;

    crc = ~crc;
    for (; length >= 8; length -= 8, byte += 8) {
        uint32_t low = protocol_get32(byte) ^ crc;
        uint32_t high = protocol_get32(byte + 4);

        crc = crc_table[7][low & 0xff] ^ crc_table[6][low >> 8 & 0xff] ^ crc_table[5][low >> 16 & 0xff] ^
              crc_table[4][low >> 24] ^ crc_table[3][high & 0xff] ^ crc_table[2][high >> 8 & 0xff] ^
              crc_table[1][high >> 16 & 0xff] ^ crc_table[0][high >> 24];
    }
    for (; length > 0; length--, byte++)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *byte) & 0xff];
    return ~crc;
}

void protocol_seal(uint8_t *to, uint16_t type, uint16_t flags, uint32_t stream, uint64_t session, uint32_t length)
{
    protocol_put32(to, PROTOCOL_MAGIC);
    protocol_put32(to + 4, length);
    protocol_put16(to + 8, type);
    protocol_put16(to + 10, flags);
    protocol_put32(to + 12, stream);
    protocol_put64(to + 16, session);
    protocol_put32(to + 24, 0);
    protocol_put32(to + 24, protocol_crc32(0, to, PROTOCOL_HEADER + length));
}

void protocol_parser_init(ProtocolParser *parser, uint16_t hello, uint32_t zeros)
{
    parser->start = parser->end = 0;
    parser->hello = hello;
    parser->wanted = zeros;
    parser->zeros = 0;
    parser->in_step = false;
}

uint8_t *protocol_parser_space(ProtocolParser *parser, size_t *ret_room)
{
    if (parser->start == parser->end) {
        parser->start = parser->end = 0;
    } else if (parser->start > 0 && sizeof(parser->buffer) - parser->end < PROTOCOL_FRAME_MAX) {
        memmove(parser->buffer, parser->buffer + parser->start, parser->end - parser->start);
        parser->end -= parser->start;
        parser->start = 0;
    }
    *ret_room = sizeof(parser->buffer) - parser->end;
    return parser->buffer + parser->end;
}

void protocol_parser_filled(ProtocolParser *parser, size_t length)
{
    parser->end += length;
}

/* The header at `at`, whose length field was checked; whether the crc of the whole frame is right. */
static bool frame_decode(const uint8_t *at, ProtocolFrame *ret_frame)
{
    static const uint8_t zero[4];
    uint32_t length = protocol_get32(at + 4);
    uint32_t crc = protocol_crc32(0, at, 24);

    crc = protocol_crc32(crc, zero, sizeof(zero));
    crc = protocol_crc32(crc, at + PROTOCOL_HEADER, length);
    if (crc != protocol_get32(at + 24))
        return false;
    *ret_frame = (ProtocolFrame){
        .type = protocol_get16(at + 8),
        .flags = protocol_get16(at + 10),
        .stream = protocol_get32(at + 12),
        .session = protocol_get64(at + 16),
        .length = length,
        .payload = at + PROTOCOL_HEADER,
    };
    return true;
}

static bool hello_decode(const ProtocolParser *parser, const uint8_t *at, ProtocolFrame *ret_frame)
{
    return protocol_get32(at) == PROTOCOL_MAGIC && protocol_get32(at + 4) == PROTOCOL_HELLO_LENGTH &&
           protocol_get16(at + 8) == parser->hello && frame_decode(at, ret_frame);
}

static ProtocolResult scan_for_hello(ProtocolParser *parser, ProtocolFrame *ret_frame)
{
    const size_t size = PROTOCOL_HEADER + PROTOCOL_HELLO_LENGTH;

    for (; parser->start < parser->end; parser->start++) {
        const uint8_t *at = parser->buffer + parser->start;

        if (*at == 0) {
            if (parser->zeros < parser->wanted)
                parser->zeros++;
            continue;
        }
        if (parser->zeros == parser->wanted && *at == (PROTOCOL_MAGIC & 0xff)) {
            if (parser->end - parser->start < size)
                return PROTOCOL_NEED_MORE;
            if (hello_decode(parser, at, ret_frame)) {
                parser->start += size;
                parser->in_step = true;
                return PROTOCOL_FRAME;
            }
        }
        parser->zeros = 0;
    }
    return PROTOCOL_NEED_MORE;
}

static ProtocolResult lose_step(ProtocolParser *parser, ProtocolResult result)
{
    parser->in_step = false;
    parser->zeros = 0;
    return result;
}

ProtocolResult protocol_parser_next(ProtocolParser *parser, ProtocolFrame *ret_frame)
{
    const uint8_t *at = parser->buffer + parser->start;
    size_t have = parser->end - parser->start;
    uint32_t length;

    if (!parser->in_step)
        return scan_for_hello(parser, ret_frame);
    if (have < 8)
        return PROTOCOL_NEED_MORE;
    length = protocol_get32(at + 4);
    if (protocol_get32(at) != PROTOCOL_MAGIC)
        return lose_step(parser, protocol_get32(at) == 0 ? PROTOCOL_RESTART : PROTOCOL_LOST_STEP);
    if (length > PROTOCOL_PAYLOAD_MAX)
        return lose_step(parser, PROTOCOL_LOST_STEP);
    if (have < PROTOCOL_HEADER + length)
        return PROTOCOL_NEED_MORE;
    parser->start += PROTOCOL_HEADER + length;
    return frame_decode(at, ret_frame) ? PROTOCOL_FRAME : lose_step(parser, PROTOCOL_LOST_STEP);
}

uint8_t *protocol_queue_payload(ProtocolQueue *queue, uint32_t length)
{
    size_t used = queue->end - queue->start;

    if (used == 0) {
        queue->start = queue->end = 0;
    } else if (queue->start >= used) { /* never moves a byte more often than one was written */
        memcpy(queue->buffer, queue->buffer + queue->start, used);
        queue->start = 0;
        queue->end = used;
    }
    if (sizeof(queue->buffer) - queue->end < PROTOCOL_HEADER + length)
        return NULL;
    return queue->buffer + queue->end + PROTOCOL_HEADER;
}

void protocol_queue_commit(ProtocolQueue *queue, uint16_t type, uint16_t flags, uint32_t stream, uint64_t session,
                           uint32_t length)
{
    protocol_seal(queue->buffer + queue->end, type, flags, stream, session, length);
    queue->end += PROTOCOL_HEADER + length;
}

bool protocol_queue_put(ProtocolQueue *queue, uint16_t type, uint16_t flags, uint32_t stream, uint64_t session,
                        const void *payload, uint32_t length)
{
    uint8_t *to = protocol_queue_payload(queue, length);

    if (!to)
        return false;
    if (length > 0)
        memcpy(to, payload, length);
    protocol_queue_commit(queue, type, flags, stream, session, length);
    return true;
}

void protocol_queue_hello(ProtocolQueue *queue, uint64_t session)
{
    uint8_t payload[PROTOCOL_HELLO_LENGTH] = {0};

    queue->start = 0;
    queue->end = PROTOCOL_PADDING;
    memset(queue->buffer, 0, PROTOCOL_PADDING);
    protocol_put32(payload, PROTOCOL_VERSION);
    protocol_queue_put(queue, PROTOCOL_HELLO, 0, 0, session, payload, sizeof(payload));
}

/* Steps over one text; NULL where none ends before `end`. */
static const char *text_skip(const char *at, const char *end)
{
    const char *nul = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;

    return nul ? nul + 1 : NULL;
}

bool protocol_exec_parse(const uint8_t *payload, size_t length, ProtocolExec *ret_exec)
{
    const char *end = (const char *)payload + length;
    ProtocolExec exec;
    const char **first[] = {&exec.user, &exec.user_name, &exec.group_name, &exec.home, &exec.directory};
    const char *at;

    if (length < PROTOCOL_EXEC_HEAD || length > PROTOCOL_EXEC_MAX)
        return false;
    exec.flags = protocol_get32(payload);
    exec.uid = protocol_get32(payload + 4);
    exec.gid = protocol_get32(payload + 8);
    exec.rows = protocol_get16(payload + 12);
    exec.columns = protocol_get16(payload + 14);
    exec.n_groups = protocol_get32(payload + 16);
    exec.n_argv = protocol_get32(payload + 20);
    exec.n_environment = protocol_get32(payload + 24);
    exec.groups = payload + PROTOCOL_EXEC_HEAD;
    if (exec.flags & ~(PROTOCOL_EXEC_PTY | PROTOCOL_EXEC_DIRECTORY_REQUIRED) || exec.n_groups > PROTOCOL_GROUPS_MAX ||
        length - PROTOCOL_EXEC_HEAD < 4 * (size_t)exec.n_groups || exec.n_argv == 0)
        return false;
    at = (const char *)exec.groups + 4 * (size_t)exec.n_groups;
    for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
        *first[i] = at;
        if (!(at = text_skip(at, end)))
            return false;
    }
    exec.argv = at;
    for (uint32_t i = 0; i < exec.n_argv; i++)
        if (!(at = text_skip(at, end)))
            return false;
    exec.environment = at;
    for (uint32_t i = 0; i < exec.n_environment; i++)
        if (!(at = text_skip(at, end)))
            return false;
    if (at != end || exec.argv[0] == 0)
        return false;
    *ret_exec = exec;
    return true;
}
