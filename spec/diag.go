package spec

import (
	"fmt"
	"sort"
	"strings"
	"unicode"

	"github.com/agnivade/levenshtein"
)

// Diagnostic is one mistake in a spec file and, in Hint, the next step.
type Diagnostic struct {
	File           string
	Line, Col, Len int // from 1, in characters; Len ≥ 1 is what to underline
	Msg            string
	Hint           string // "" or what to do
	SourceLine     string
	Note           *Note // nil or a second place that matters
}

// Note is a second place in the same file.
type Note struct {
	Line, Col, Len int
	Msg            string
	SourceLine     string
}

// String gives "file:line:col: message", the line with a caret under it, the
// hint and the note, without a final newline.
func (d Diagnostic) String() string {
	var b strings.Builder
	place(&b, d.File, span{Pos{d.Line, d.Col}, d.Len}, d.Msg, d.SourceLine)
	if d.Hint != "" {
		fmt.Fprintf(&b, "\n  hint: %s", d.Hint)
	}
	if d.Note != nil {
		b.WriteByte('\n')
		place(&b, d.File, span{Pos{d.Note.Line, d.Note.Col}, d.Note.Len}, "note: "+d.Note.Msg, d.Note.SourceLine)
	}
	return b.String()
}

// excerptWidth is how much of a source line is shown, in characters.
const excerptWidth = 120

func place(b *strings.Builder, file string, at span, msg, line string) {
	fmt.Fprintf(b, "%s:%d:%d: %s", file, at.Line, at.Col, msg)
	text := []rune(line)
	if strings.TrimSpace(line) == "" || at.Col > len(text)+1 {
		return
	}
	from := 0 // long lines are shown around the place
	if len(text) > excerptWidth && at.Col > excerptWidth/2 {
		from = at.Col - excerptWidth/2
	}
	to := min(len(text), from+excerptWidth)
	under := make([]rune, 0, at.Col-from)
	for _, r := range text[from : at.Col-1] {
		if r != '\t' { // a tab keeps its width, whatever that is
			r = ' '
		}
		under = append(under, r)
	}
	n := max(1, min(at.Len, to-at.Col+1))
	fmt.Fprintf(b, "\n  %s\n  %s^%s", visible(string(text[from:to])), string(under), strings.Repeat("~", n-1))
}

// visible replaces control and other invisible characters, which must not
// reach a terminal.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// Diagnostics are all mistakes of a file, sorted by position. Never empty as an
// error.
type Diagnostics []Diagnostic

// maxShown bounds what Error prints; the rest is counted.
const maxShown = 50

// Error gives every diagnostic in full, separated by newlines.
func (ds Diagnostics) Error() string {
	var parts []string
	for i, d := range ds {
		if i == maxShown {
			parts = append(parts, fmt.Sprintf("%s: %d more errors are not shown", d.File, len(ds)-i))
			break
		}
		parts = append(parts, d.String())
	}
	return strings.Join(parts, "\n")
}

// reporter collects diagnostics for one file.
type reporter struct {
	file  string
	lines []string
	found Diagnostics
	seen  map[string]bool
}

func newReporter(file string, src []byte) *reporter {
	return &reporter{file: file, lines: splitLines(src), seen: map[string]bool{}}
}

// splitLines cuts at \n and drops a \r before it. The guard refuses the other
// line breaks YAML knows, so that positions agree with every editor's.
func splitLines(src []byte) []string {
	lines := strings.Split(string(src), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\r")
	}
	return lines
}

func (r *reporter) line(n int) string {
	if n < 1 || n > len(r.lines) {
		return ""
	}
	return r.lines[n-1]
}

// errorf records a mistake without a hint.
func (r *reporter) errorf(at span, format string, args ...any) {
	r.add(at, "", fmt.Sprintf(format, args...))
}

// add records a mistake. The same one twice, as from two copies of a repeat, is
// recorded once.
func (r *reporter) add(at span, hint, msg string) {
	r.addNote(at, hint, msg, nil)
}

func (r *reporter) addNote(at span, hint, msg string, note *Note) {
	at, msg, hint = r.inside(at), visible(msg), visible(hint)
	key := fmt.Sprintf("%d:%d:%s", at.Line, at.Col, msg)
	if r.seen[key] {
		return
	}
	r.seen[key] = true
	r.found = append(r.found, Diagnostic{
		File: r.file, Line: at.Line, Col: at.Col, Len: max(1, at.Len),
		Msg: msg, Hint: hint, SourceLine: r.line(at.Line), Note: note,
	})
}

func (r *reporter) note(at span, format string, args ...any) *Note {
	at = r.inside(at)
	return &Note{Line: at.Line, Col: at.Col, Len: max(1, at.Len),
		Msg: visible(fmt.Sprintf(format, args...)), SourceLine: r.line(at.Line)}
}

// inside moves a position that points past the text (the YAML library gives the
// place after the last line for some empty values) to the end of the text.
func (r *reporter) inside(at span) span {
	at.Line = min(max(1, at.Line), len(r.lines))
	width := len([]rune(r.line(at.Line)))
	at.Col = min(max(1, at.Col), width+1)
	return at
}

// err gives what was found, sorted, or nil.
func (r *reporter) err() error {
	if len(r.found) == 0 {
		return nil
	}
	sort.SliceStable(r.found, func(i, j int) bool {
		a, b := r.found[i], r.found[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
	return r.found
}

// didYouMean gives "did you mean …?" for the known word that is nearest, or
// that begins as this one does, or "".
func didYouMean(word string, known []string) string {
	if n := nearest(word, known); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return ""
}

func nearest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	limit := max(2, len(word)/3) // two letters swapped are a distance of 2
	best, bestDist := "", min(limit, len(word)-1)+1
	for _, k := range known {
		if d := levenshtein.ComputeDistance(word, k); d < bestDist {
			best, bestDist = k, d
		}
	}
	if best != "" || len(word) < 3 {
		return best
	}
	for _, k := range known {
		if len(k) >= 3 && (strings.HasPrefix(k, word) || strings.HasPrefix(word, k)) {
			return k
		}
	}
	return ""
}
