package spec

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// update says whether golden files are to be rewritten.
var update = os.Getenv("VITGEN_UPDATE") != ""

// TestErrors compares everything a user is shown for a wrong file, exactly.
// Each case is a txtar of in.yaml and what is wanted; VITGEN_UPDATE=1 rewrites
// the latter.
func TestErrors(t *testing.T) {
	entries, err := os.ReadDir("testdata/errors")
	if err != nil || len(entries) < 40 {
		t.Fatalf("%d error cases, %v", len(entries), err)
	}
	for _, e := range entries {
		name, isCase := strings.CutSuffix(e.Name(), ".txtar")
		if !isCase {
			t.Errorf("testdata/errors/%s belongs to no test", e.Name())
			continue
		}
		t.Run(name, func(t *testing.T) { errorCase(t, filepath.Join("testdata/errors", e.Name())) })
	}
}

func errorCase(t *testing.T, file string) {
	a := txtar.Parse(read(t, file))
	if len(a.Files) != 2 || a.Files[0].Name != "in.yaml" || a.Files[1].Name != "want" {
		t.Fatalf("%s must hold in.yaml and want", file)
	}
	src := a.Files[0].Data
	_, err := Parse("in.yaml", src)
	if err == nil {
		t.Fatal("parsed without an error")
	}
	checkDiagnostics(t, src, err)
	got := []byte(err.Error() + "\n")
	if update && !bytes.Equal(got, a.Files[1].Data) {
		a.Files[1].Data = got
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(a.Files[1].Data), string(got)); diff != "" {
		t.Errorf("wanted (-), got (+):\n%s", diff)
	}
}

// checkDiagnostics holds what every error of Parse promises: sorted, inside of
// the file, one line each.
func checkDiagnostics(t *testing.T, src []byte, err error) {
	t.Helper()
	var ds Diagnostics
	if !errors.As(err, &ds) || len(ds) == 0 {
		t.Fatalf("%T is not Diagnostics: %v", err, err)
	}
	lines := splitLines(src)
	inside := func(line, col, length int, text string) {
		if line < 1 || line > len(lines) || col < 1 || col > utf8.RuneCountInString(lines[line-1])+1 || length < 1 {
			t.Errorf("%d:%d+%d is outside of the file", line, col, length)
		} else if text != lines[line-1] {
			t.Errorf("line %d is not %q", line, text)
		}
	}
	for i, d := range ds {
		inside(d.Line, d.Col, d.Len, d.SourceLine)
		if d.Note != nil {
			inside(d.Note.Line, d.Note.Col, d.Note.Len, d.Note.SourceLine)
		}
		if d.Msg == "" || strings.ContainsAny(d.Msg+d.Hint, "\r\n") {
			t.Errorf("message %q, hint %q", d.Msg, d.Hint)
		}
		if i > 0 && (d.Line < ds[i-1].Line || d.Line == ds[i-1].Line && d.Col < ds[i-1].Col) {
			t.Errorf("%d:%d comes after %d:%d", d.Line, d.Col, ds[i-1].Line, ds[i-1].Col)
		}
	}
}

// TestBytes covers what a text file of test cases cannot hold.
func TestBytes(t *testing.T) {
	good := string(read(t, "../examples/vit_tiny.yaml"))
	for _, c := range []struct{ name, src, want string }{
		{"empty", "", "x.yaml:1:1: the file is empty"},
		{"latin-1", "vitgen: 1\nname: gr\xf6sse\n", "x.yaml:2:9: the file is not UTF-8: byte 0xf6"},
		{"utf-16", "\xff\xfev\x00i\x00", "x.yaml:1:1: the file is not UTF-8: byte 0xff"},
		{"zero byte", "vitgen: 1\x00\n", "x.yaml:1:10: a control character, U+0000"},
		{"escape", "vitgen: 1\nname: \x1b[31mred\n", "x.yaml:2:7: a control character, U+001B"},
		{"line separator", "vitgen: 1\n# a\u2028b\n", "x.yaml:2:4: an unusual line break, U+2028"},
		{"carriage return", "vitgen: 1\n# a\rb\n", "x.yaml:2:4: an unusual line break, U+000D"},
		{"too large", "#" + strings.Repeat(" ", maxBytes), "x.yaml:1:1: the file has 1048577 bytes; a spec may have 1048576"},
		{"windows", strings.ReplaceAll(strings.Replace(good, "patch: 2", "ptach: 2", 1), "\n", "\r\n"), `: patch_embed has no key "ptach"`},
		{"deep flow", "vitgen: " + strings.Repeat("[", 20000), "x.yaml:1:20008: this [ is never closed"},
		{"deep blocks", "model:\n" + strings.Repeat("- ", 20000), "x.yaml:2:1: not valid YAML: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("x.yaml", []byte(c.src))
			if err == nil {
				t.Fatal("parsed without an error")
			}
			checkDiagnostics(t, []byte(c.src), err)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s\nwant %s", err, c.want)
			}
			if strings.ContainsAny(err.Error(), "\x00\x1b\r") {
				t.Errorf("control characters reach the terminal: %q", err)
			}
		})
	}
	for name, src := range map[string]string{
		"windows":         strings.ReplaceAll(good, "\n", "\r\n"),
		"byte order mark": "\ufeff" + good,
	} {
		if _, err := Parse("x.yaml", []byte(src)); err != nil {
			t.Errorf("%s:\n%v", name, err)
		}
	}
}
