/* SPDX-License-Identifier: Apache-2.0 */
/* The version of libfuse's interface that we are written to, in one place. */
#ifndef FM_FUSE_VERSION_H
#define FM_FUSE_VERSION_H

#define FUSE_USE_VERSION 317
#include <fuse_lowlevel.h>

#endif
