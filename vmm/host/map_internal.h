/*
 * map_internal.h: who has which PU, numbered in the order of PUs, for both kinds of drawing.
 */
#pragma once

#include "map.h"

typedef struct {
    GPtrArray *names; /* of char *, escaped: owner i */
    GArray *counts;   /* of guint: PUs of owner i */
    GArray *owners;   /* of int by PU: index into names, or -1 */
    guint free_pus;   /* usable, without an owner */
} MapOwners;

MapOwners *map_owners_new(const Host *host, MapOwnerFunc owner_of, gpointer data);
void map_owners_free(MapOwners *owners);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MapOwners, map_owners_free)

/* The owner of a PU, or -1. */
int map_owner_of(const MapOwners *owners, unsigned pu);

/* The letter of owner i: A-Z, a-z, then '#' for all further ones. */
char map_letter(unsigned owner);
