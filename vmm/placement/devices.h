/*
 * devices.h: what devices.c and match.c share. devices.c fills it in; only `effort` changes afterwards.
 */
#pragma once

#include "solver.h"

/* A wanted device. Those that ask for the same are next to each other: from `first` up to, but not with, `end`. */
typedef struct {
    const SpecDevice *wanted;
    unsigned first, end;
} Request;

/* Devices that differ by their addresses only: for a match, one is as good as another. */
typedef struct {
    guint64 requests;    /* bit per request that they would do for */
    unsigned port;       /* number of the root port that they are below, from 1; 0: it is not told */
    int node;            /* of the operating system, or -1 */
    unsigned *distances; /* by node of the survey; 10 is local, 255 where the device's place is not told */
    GArray *devices;     /* of unsigned: indices into `all`, by address */
} DeviceClass;

/* What was spent on matching so far. */
typedef struct {
    guint64 looks;
    gboolean cut_short;
} MatchEffort;

struct Devices {
    const Survey *survey;
    GPtrArray *all;      /* of HostDevice, by address; the host's */
    GArray *requests;    /* of Request, by what they ask for, then by name */
    GArray *by_name;     /* of unsigned: indices of requests */
    GArray *classes;     /* of DeviceClass, by their lowest address */
    guint64 local;       /* bit per request whose place matters */
    unsigned ports;      /* how many there are */
    unsigned port_most;  /* the most devices that would do below one port, at least 1 */
    MatchEffort *effort;
};

#define devices_request(devices, i) (&g_array_index((devices)->requests, Request, (i)))
#define devices_class(devices, i) (&g_array_index((devices)->classes, DeviceClass, (i)))
