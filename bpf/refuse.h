/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How a cgroup hook says no. */
#ifndef RINGFENCE_REFUSE_H
#define RINGFENCE_REFUSE_H

/*
 * Set by the loader before the programs are verified; dead code goes away.
 * bpf_set_retval works in this hook family: the helper came with 5.18, its use
 * in socket hooks later, so the loader tries instead of asking for a version.
 * Without it a denial is EPERM.
 */
const volatile __u8 rf_have_retval = 0;

/* Refuses with err where the kernel lets us choose (see rf_have_retval). */
static __always_inline int rf_refuse(int err)
{
	if (rf_have_retval)
		bpf_set_retval(-err);
	return 0;
}

static __always_inline __u32 rf_errno(int err)
{
	return rf_have_retval ? err : EPERM;
}

#endif
