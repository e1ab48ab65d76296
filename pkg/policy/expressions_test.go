// SPDX-License-Identifier: Apache-2.0

package policy_test

import _ "github.com/ringfence/ringfence/pkg/policy/celexpr" // the tests of this package evaluate conditions
