// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Call is what a sandbox wants to do now, and the decision that demands people
// for it. Sandbox, Scope and Launcher are the keeper's word, never the caller's.
type Call struct {
	Sandbox    string // id
	Scope      string // canonical principal, with the sandbox
	Launcher   uint32 // uid of who launched the sandbox
	Asker      Asker
	Kind       Kind
	Target     string // HOST:PORT/PROTO, "server:jira/tool:read_issue", a model's name
	Definition string // hash of what the target is, for tools; "" where there is none
	Arguments  string // hash of the final arguments; "" where there are none
	Shown      string // the arguments as people may read them: redacted; bytes that a sandbox chose

	// Args are the arguments one by one, in the order of their paths, where Listed
	// says that these are all: a grant for others like it looks at nothing else.
	Args   []Argument
	Listed bool

	// Waits is the id of the request that this very call waits as already: it is
	// not counted again. "" for a new call.
	Waits string

	Fingerprint string   // of the rules that decided, and their obligations
	Demands     []Demand // at least one; all must be met
}

// Asker is what people know a sandbox by. It is not part of what is bound: a
// decision never depends on it.
type Asker struct {
	Name      string `json:"name,omitempty"`
	Program   string `json:"program,omitempty"` // that it was launched with
	Workspace string `json:"workspace,omitempty"`
	Profile   string `json:"profile,omitempty"`
}

// clipped is an Asker whose texts are within bounds.
func (a Asker) clipped() Asker {
	return Asker{clip(a.Name, MaxTarget), clip(a.Program, MaxTarget), clip(a.Workspace, MaxTarget), clip(a.Profile, MaxTarget)}
}

// Demand is what one rule demands. The zero value cannot be met.
type Demand struct {
	Rule         string        `json:"rule"`                // document/id
	At           string        `json:"at,omitempty"`        // where the rule stood when it asked: FILE:LINE
	Reason       string        `json:"reason,omitempty"`    // what it says to people
	Approvers    []string      `json:"approvers,omitempty"` // as scope.ParsePerson reads them; none: root, the launcher, who has the role of approver in the scope
	Quorum       int           `json:"quorum"`              // distinct people, at least one
	Separate     bool          `json:"separate,omitempty"`  // the launcher's vote does not count
	ExpiresAfter time.Duration `json:"expiresAfter"`        // how long it lets a request wait
	ValidFor     time.Duration `json:"validFor,omitempty"`  // bounds every grant; 0: no bound of the rule's
}

// Valid says why a demand cannot be taken as it is.
func (d *Demand) Valid() error {
	switch {
	case d.Rule == "" || len(d.Rule) > MaxTarget:
		return fmt.Errorf("%w: a demand without the name of its rule", ErrCall)
	case len(d.At)+len(d.Reason) > 2*MaxShown:
		return fmt.Errorf("%w: %d bytes of place and reason of %s", ErrCall, len(d.At)+len(d.Reason), d.Rule)
	case d.Quorum < 1 || d.Quorum > MaxQuorum:
		return fmt.Errorf("%w: the quorum of %s is %d, and has to be 1 to %d", ErrCall, d.Rule, d.Quorum, MaxQuorum)
	case d.ExpiresAfter <= 0 || d.ExpiresAfter > MaxExpiry:
		return fmt.Errorf("%w: expiresAfter of %s is not above 0 and at most %s", ErrCall, d.Rule, MaxExpiry)
	case d.ValidFor < 0 || d.ValidFor > MaxValidity:
		return fmt.Errorf("%w: validFor of %s is not between 0 and %s", ErrCall, d.Rule, MaxValidity)
	case len(d.Approvers) > MaxApprovers:
		return fmt.Errorf("%w: %s names more than %d approvers", ErrCall, d.Rule, MaxApprovers)
	}
	for _, a := range d.Approvers {
		if _, err := scope.ParsePerson(a); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCall, d.Rule, err)
		}
	}
	return nil
}

// Valid says why a call cannot be asked for. A call without demands is none:
// nobody would have to agree.
func (c *Call) Valid() error {
	p, err := scope.ParsePrincipal(c.Scope)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrCall, err)
	case c.Sandbox == "" || p.Sandbox != c.Sandbox:
		return fmt.Errorf("%w: the scope %q is not that of sandbox %q", ErrCall, c.Scope, c.Sandbox)
	case c.Kind != Egress && c.Kind != Tool && c.Kind != Model:
		return fmt.Errorf("%w: the kind %q", ErrCall, c.Kind)
	case c.Target == "" || len(c.Target) > MaxTarget:
		return fmt.Errorf("%w: a target of %d bytes", ErrCall, len(c.Target))
	case len(c.Shown) > MaxShown:
		return fmt.Errorf("%w: %d bytes to show", ErrCall, len(c.Shown))
	case !hash(c.Fingerprint), c.Definition != "" && !hash(c.Definition), c.Arguments != "" && !hash(c.Arguments):
		return fmt.Errorf("%w: a hash that is none", ErrCall)
	case len(c.Demands) == 0 || len(c.Demands) > MaxDemands:
		return fmt.Errorf("%w: %d demands", ErrCall, len(c.Demands))
	case len(c.Args) > 0 && !c.Listed:
		return fmt.Errorf("%w: arguments that are not all of them", ErrCall)
	}
	if err := validArguments(c.Args); err != nil {
		return err
	}
	for i := range c.Demands {
		if err := c.Demands[i].Valid(); err != nil {
			return err
		}
	}
	return nil
}

// hash says whether s is a SHA-256 in lower-case hex.
func hash(s string) bool {
	if len(s) != 2*sha256.Size {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Binding is the hash of what will run: SHA-256 over scope, kind, target,
// definition and arguments, each with its length, so that no two calls have the
// same text.
func (c *Call) Binding() string {
	h := sha256.New()
	for _, s := range []string{"ringfence approval 1", c.Scope, string(c.Kind), c.Target, c.Definition, c.Arguments} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// expiry is the shortest time that a demand lets a request wait.
func (c *Call) expiry() time.Duration {
	shortest := MaxExpiry
	for i := range c.Demands {
		shortest = min(shortest, c.Demands[i].ExpiresAfter)
	}
	return shortest
}
