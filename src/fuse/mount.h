/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting a store: the one entry to this folder for the fmfs program.
 */
#ifndef FM_FUSE_MOUNT_H
#define FM_FUSE_MOUNT_H

/*
 * Mount as the arguments say and return the exit status of the program: 0 once
 * the mount answers (the daemon goes on as a child process), or, in the
 * foreground, once it is unmounted; else 1 (failure) or 2 (usage), after a
 * message on standard error.  argv[0] is the verb "mount", or the path of the
 * program when it was called as mount.fmfs; then the options have the meaning
 * that mount(8) gives to those of its helpers.
 */
int fmfs_mount_main(int argc, char **argv);

#endif
