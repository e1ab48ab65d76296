// SPDX-License-Identifier: Apache-2.0

package price

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ImportOptions say what to make of a list that others publish.
type ImportOptions struct {
	// Version names the table; Effective is the time from which it holds, which
	// neither list says; Source is where the list was read.
	Version   string
	Effective time.Time
	Source    string
	// Providers are the kinds to take, none: all.
	Providers []string
	// Free takes models all of whose prices are zero. The lists write a zero also
	// where no price is known, so without it they are left out.
	Free bool
}

// Skipped is a model of a list that was not taken, and why; Why of one that was
// taken says what of its price was not.
type Skipped struct {
	Name, Why string
	Taken     bool
}

// Imported is a table made of a list.
type Imported struct {
	Table   Table
	Skipped []Skipped
}

// importer collects models.
type importer struct {
	o   ImportOptions
	out Imported
	had map[key]bool
}

func newImporter(o ImportOptions) (*importer, error) {
	if !validVersion(o.Version) {
		return nil, fmt.Errorf("price: the version %q has to be letters, digits and any of : . _ - +", o.Version)
	}
	if o.Effective.IsZero() || o.Source == "" {
		return nil, errors.New("price: an import needs the time from which it holds, and its source")
	}
	return &importer{o: o, had: map[key]bool{}, out: Imported{Table: Table{Version: o.Version, Effective: o.Effective.UTC(), Source: o.Source}}}, nil
}

func (im *importer) wants(provider string) bool {
	return len(im.o.Providers) == 0 || slices.Contains(im.o.Providers, provider)
}

func (im *importer) skip(name, why string) {
	im.out.Skipped = append(im.out.Skipped, Skipped{Name: name, Why: why})
}

// add takes a model, unless something is wrong with it. left are the prices that
// there is no unit for.
func (im *importer) add(listed string, m Model, left []string) {
	k := key{m.Provider, m.Name}
	switch {
	case !validName(m.Name) || strings.HasSuffix(m.Name, "*") || !validName(m.Provider):
		im.skip(listed, "its name cannot be a model's")
	case im.had[k]:
		im.skip(listed, "another entry is the same model of the same provider")
	case m.Rates.Empty() && len(left) > 0:
		im.skip(listed, "it is priced by what is not counted here: "+strings.Join(left, ", "))
	case m.Rates.Empty():
		im.skip(listed, "it has no price")
	case m.Rates.allZero() && !im.o.Free:
		im.skip(listed, "its price is zero, which the list also writes where none is known")
	case !m.order():
		im.skip(listed, "its tiers are too many, or two begin at one size")
	default:
		im.had[k] = true
		im.out.Table.Models = append(im.out.Table.Models, m)
		if len(left) > 0 {
			im.out.Skipped = append(im.out.Skipped, Skipped{listed, "not taken: " + strings.Join(left, ", "), true})
		}
	}
}

// order sorts the tiers; false: no order is right.
func (m *Model) order() bool {
	slices.SortFunc(m.Tiers, func(x, y Tier) int { return cmp.Compare(x.ContextOver, y.ContextOver) })
	for i := 1; i < len(m.Tiers); i++ {
		if m.Tiers[i-1].ContextOver == m.Tiers[i].ContextOver {
			return false
		}
	}
	return len(m.Tiers) <= maxTiers
}

// done checks the whole by writing and reading it.
func (im *importer) done() (Imported, error) {
	t := &im.out.Table
	if len(t.Models) == 0 {
		return im.out, errors.New("price: the list has no price that could be taken")
	}
	if len(t.Models) > MaxModels {
		return im.out, fmt.Errorf("price: the list has more than %d models", MaxModels)
	}
	read, err := Parse("import", t.AppendYAML(nil))
	if err != nil {
		return im.out, fmt.Errorf("price: the imported table cannot be read back: %w", err)
	}
	*t = read
	return im.out, nil
}

// decodeList reads a JSON object strictly enough to trust: numbers stay text, and
// nothing follows it.
func decodeList[T any](text []byte, to *map[string]T) error {
	if len(text) > MaxTable {
		return fmt.Errorf("price: the list is larger than %d MiB", MaxTable>>20)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(to); err != nil {
		return fmt.Errorf("price: the list is no JSON of the expected form (at byte %d): %w", dec.InputOffset(), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("price: something follows the list")
	}
	return nil
}

// number is the text of a JSON number; numbers that were written as text count.
func number(v any) (string, bool) {
	switch v := v.(type) {
	case json.Number:
		return v.String(), true
	case string:
		_, _, err := decimal(v)
		return v, err == nil
	}
	return "", false
}

// tokens reads a bound of a model, 0 where the list has prose or nothing.
func tokens(v any) uint64 {
	text, ok := number(v)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 53)
	if err != nil {
		return 0
	}
	return n
}

// sortedKeys makes an import the same each time.
func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
