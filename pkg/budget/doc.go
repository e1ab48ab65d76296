// SPDX-License-Identifier: Apache-2.0

// Package budget keeps what model calls cost below what budgets allow: the
// [Ledger] of the keeper, and the [Till] of the gateway.
//
// # Who holds what
//
// The ledger has an account for each budget and each of what it is counted apart
// for. It gives amounts of an account away as leases, durably before the gateway
// may spend them, and never more than the account has left. The till reserves
// inside its leases, so that a call waits neither for a disk nor for the keeper
// while there is room; it asks for more before a lease runs dry, and waits for the
// answer when it is dry. A call counts in every account of every budget that is
// for it and must fit in all that are hard.
//
// # One exchange
//
// All that a till has to say is in one message, one at a time: settlements with
// consecutive numbers, what it gives back, what it asks for. The ledger does them
// in that order in one transaction. Settlements below the number that is applied
// are skipped; a lease that is given back, or asked about, is named with its whole
// amount. So a message may come twice, after a keeper that died with it.
//
// # Crashes
//
// What is under way stands in [Slots]: memory of fixed-size numbers that the keeper
// made and the gateway writes (a memfd that cannot change its size). Writing it
// waits for nothing, and it is there after kill -9. When a gateway is gone, the
// keeper seals the memory against writing, which the kernel only does when nobody
// has it mapped any more, and reads it: a call that was settled settles, one that
// was sent settles at what was reserved for it, flagged estimated, one that was not
// sent is released, and so is the rest of the leases.
//
// A keeper that was killed gets the memory back from the gateway, which goes on
// meanwhile inside its leases until they expire. Where both died, or the machine,
// the memory is gone: then all that was leased counts as spent, which is little,
// for leases are small. Money may be counted that was not spent, never the other
// way round.
//
// # What holds
//
// Spent is at most the limit (with what it was increased by) and what providers
// reported above the caps that were declared to them; each such excess is an event.
// A limit that is lowered below what was spent or leased already cannot take it
// back.
//
// Windows begin where the calendar of their zone says; a clock that goes back stays
// in the newest window. One that jumps ahead begins a new window, and stays there.
package budget
