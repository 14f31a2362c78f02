package measure

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/renameio/v2"
)

// Spread is a figure of each round, in short.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// SpreadOf a list that is not empty.
func SpreadOf(v []float64) Spread { return Spread{Median(v), slices.Min(v), slices.Max(v)} }

// Median of a list that is not empty.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Percent of b that a is.
func Percent(a, b int64) float64 { return 100 * float64(a) / float64(b) }

// Write keeps a report as Save does, and prints it.
func Write(dir, name string, figures any, report string) error {
	if err := Save(dir, name, figures, report); err != nil {
		return err
	}
	fmt.Printf("%s\nwritten to %s.md and .json\n", report, filepath.Join(dir, name))
	return nil
}

// Save keeps a report, next to its figures, as NAME.md and NAME.json.
func Save(dir, name string, figures any, report string) error {
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	base := filepath.Join(dir, name)
	if err := renameio.WriteFile(base+".json", append(data, '\n'), 0o644); err != nil {
		return err
	}
	return renameio.WriteFile(base+".md", []byte(report), 0o644)
}

// Table is Markdown that can be read as it is: the first column stands left,
// the last too if leftLast, the others right.
func Table(rows [][]string, leftLast bool) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 || leftLast && i == len(row)-1 {
				b.WriteString("| " + cell + pad + " ")
			} else {
				b.WriteString("| " + pad + cell + " ")
			}
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, w := range widths {
			if i == 0 || leftLast && i == len(row)-1 {
				b.WriteString("|" + strings.Repeat("-", w+2))
			} else {
				b.WriteString("|" + strings.Repeat("-", w+1) + ":")
			}
		}
		b.WriteString("|\n")
	}
	return b.String()
}
