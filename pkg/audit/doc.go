// SPDX-License-Identifier: Apache-2.0

// Package audit keeps the node's event log: segmented files of OCSF JSON lines
// in a hash chain, written by one process, with group commit.
//
// # Format
//
// The directory holds segments named
//
//	<ordinal, 8 digits>-<sequence of the first record, 20 digits>.jsonl
//
// Ordinals count up by one from 1, sequences count up by one from 1 over all
// segments. A segment is a series of lines, each one OCSF 1.8 record as
// event.AppendOCSF writes it, with three members added at the very end:
//
//	{"time":...,"metadata":{"uid":"<chain>-<sequence>","sequence":<sequence>,...},...,
//	 "unmapped":{"ringfence":{...,"chain":"<16 hex>","prev":"<64 hex>","hash":"<64 hex>"}}}
//
// (one line, here broken for reading). chain is a random name given to the log
// when it is created. hash is the SHA-256 of the bytes of the line from its
// first byte up to and including the closing quote of prev: that is everything
// before `,"hash":"`. prev is the hash of the record before, whichever segment
// it is in; so segments are linked through the first record of each. The prev of
// record 1 is the SHA-256 of
//
//	"ringfence audit log 1\n" + chain
//
// A record thus proves its own content, and commits to everything before it.
// The line as a whole stays a valid OCSF record.
//
// # Durability
//
// Append returns after the record and all before it were written and synced;
// appends that arrive while a sync is under way share the next one. After a
// crash Open cuts an unfinished tail (which nobody was told is durable), keeps
// the cut bytes in the file "torn-tail", records that it did so, and continues
// the chain. A bad record with good ones behind it is no torn tail: that segment
// is left alone as evidence and the chain continues in a new one.
//
// When a write fails, the records of that batch are counted as lost, nothing of
// them stays in the file, and the next batch that can be written starts with a
// loss record that says how many and why.
//
// # Retention
//
// When all segments together exceed the bound, the oldest are removed: first a
// record with activity "retention" is made durable that names the last sequence
// removed and its hash, then the files go. The first record kept must be the
// one that record speaks of.
//
// # What verification proves, and what not
//
// Verify finds a record that was changed, removed, inserted or moved, a segment
// that was removed or shortened in the middle of the log, and a beginning that
// is missing without a retention record, and names the first such place. A
// chain alone cannot show that the end was cut off, nor that everything from
// some record on was rewritten by somebody who recomputed the hashes: the
// whole state of the log is in the directory. For that an anchor is needed that
// left the host: Head gives the last sequence and its hash, VerifyAgainst
// compares the log with such a head. "Consistent up to N" is all that Verify
// says; "anchored up to M" is what VerifyAgainst adds.
package audit
