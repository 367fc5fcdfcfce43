/* Placements read back from metadata: whatever the text, it is refused with INVALID, or writes itself again the same way. */
#include "hvm_error.h"
#include "placement.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autoptr(GError) error = NULL;
    g_autoptr(Placement) placement = placement_from_json(text, &error), again = NULL;
    g_autofree char *first = NULL, *second = NULL;

    if (!placement) {
        if (!g_error_matches(error, HVM_ERROR, HVM_ERROR_INVALID))
            abort();
        return 0;
    }
    first = placement_to_json(placement);
    again = placement_from_json(first, NULL);
    if (!again)
        abort();
    second = placement_to_json(again);
    if (strcmp(first, second) != 0)
        abort();
    ledger_entry_free(placement_promise(placement, "uuid", "name", 0));
    return 0;
}
