// SPDX-License-Identifier: Apache-2.0

package top

import (
	"strings"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
)

// maxInput is how many bytes can be typed.
const maxInput = 500

// input is one line that is being typed. done is called with it when it is
// finished, and not when it is given up.
type input struct {
	label string
	value string
	done  func(value string) tea.Cmd
}

func (in *input) add(s string) {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ")
	if s != "" && len(in.value)+len(s) <= maxInput {
		in.value += s
	}
}

// key takes one key; over says that nothing is typed any more.
func (in *input) key(k tea.KeyPressMsg) (over bool, cmd tea.Cmd) {
	switch k.String() {
	case "enter":
		return true, in.done(strings.TrimSpace(in.value))
	case "esc", "ctrl+c":
		return true, nil
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(in.value)
		in.value = in.value[:len(in.value)-n]
	case "ctrl+u":
		in.value = ""
	case "space", " ":
		if in.value != "" && len(in.value) < maxInput {
			in.value += " "
		}
	default:
		in.add(k.Text)
	}
	return false, nil
}
