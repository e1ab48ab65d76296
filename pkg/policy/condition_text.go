// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
)

// String is the condition for people.
func (w *When) String() string {
	parts := []string{}
	if w.Expression != "" {
		parts = append(parts, w.Expression)
	}
	for i := range w.Windows {
		parts = append(parts, w.Windows[i].String())
	}
	return strings.Join(parts, "; ")
}

// String is the window for people.
func (w *Window) String() string {
	var days []string
	for i, name := range dayNames {
		if w.Days&(1<<i) != 0 {
			days = append(days, name)
		}
	}
	at := func(m int) string { return fmt.Sprintf("%02d:%02d", m/60, m%60) }
	return strings.TrimSpace(fmt.Sprintf("%s %s-%s %s", strings.Join(days, ","), at(w.From), at(w.To), w.Zone))
}
