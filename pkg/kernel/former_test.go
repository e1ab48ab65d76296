// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What a version pinned that is not the one before this, or a later one, is
// left alone, and the error says what to do.
func TestAnotherLayoutIsRefused(t *testing.T) {
	needRoot(t)
	for number, want := range map[int]string{1: "a version in between", Layout() + 1: "start the newer version again", 99: "start the newer version again"} {
		pin := t.TempDir()
		if err := ensureBPFFS(pin); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(pin, layoutPrefix+strconv.Itoa(number))
		if err := os.MkdirAll(filepath.Join(dir, "sandbox", "7"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Options{PinDir: pin, Logger: slog.New(slog.DiscardHandler)})
		var other *LayoutError
		if !errors.As(err, &other) || other.Found != number || other.Known != Layout() || !strings.Contains(err.Error(), want) {
			t.Errorf("layout %d: %v", number, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "sandbox", "7")); err != nil {
			t.Errorf("what was pinned: %v", err)
		}
		if _, err := os.Stat(filepath.Join(pin, layoutPrefix+strconv.Itoa(Layout()))); number != Layout() && err == nil {
			t.Error("something was made although it was refused")
		}
		if err := errors.Join(os.RemoveAll(dir), releaseBPFFS(pin)); err != nil {
			t.Error(err)
		}
	}
}
