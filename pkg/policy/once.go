// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// OnceMark in the name of a document says that its rules admit one connection
// and no other. Only `ringfence allow --once` makes such names; a document of
// an operator that happens to have one is held to the same, which is stricter.
const OnceMark = ".once-"

// Once says whether the rule admits one connection only.
func (r RuleRef) Once() bool { return strings.Contains(r.Doc, OnceMark) }
