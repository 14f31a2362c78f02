package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ev is a stream of events of a package, as go test -json writes them.
func ev(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.ReplaceAll(l, "@", `"Package":"github.com/vitgen/vitgen/a"`) + "\n")
	}
	return b.String()
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		ok             bool
	}{
		{"passed and skipped", ev(
			`{"Action":"start",@}`,
			`{"Action":"run",@,"Test":"TestA"}`,
			`{"Action":"output",@,"Test":"TestA","Output":"=== RUN   TestA\n"}`,
			`{"Action":"output",@,"Test":"TestA","Output":"    a_test.go:7: SKIPPED: no GPU: none found\n"}`,
			`{"Action":"output",@,"Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}`,
			`{"Action":"skip",@,"Test":"TestA","Elapsed":0}`,
			`{"Action":"run",@,"Test":"TestB"}`,
			`{"Action":"output",@,"Test":"TestB","Output":"chatter\n"}`,
			`{"Action":"pass",@,"Test":"TestB","Elapsed":0.5}`,
			`{"Action":"pass",@,"Elapsed":1.25}`,
			`{"Action":"skip","Package":"github.com/vitgen/vitgen/b","Elapsed":0}`,
		), `ok    a                                    1.2 s  1 tests, 1 skipped

1 tests passed, 0 failed, 1 skipped; 1 packages have none
  skipped  a TestA: SKIPPED: no GPU: none found
`, true},
		{"failed", ev(
			`{"Action":"run",@,"Test":"TestA"}`,
			`{"Action":"run",@,"Test":"TestA/x"}`,
			`{"Action":"output",@,"Test":"TestA/x","Output":"=== RUN   TestA/x\n"}`,
			`{"Action":"output",@,"Test":"TestA/x","Output":"    a_test.go:9: got 1\n"}`,
			`{"Action":"output",@,"Test":"TestA/x","Output":"    --- FAIL: TestA/x (0.00s)\n"}`,
			`{"Action":"fail",@,"Test":"TestA/x"}`,
			`{"Action":"fail",@,"Test":"TestA"}`,
			`{"Action":"output",@,"Output":"FAIL\n"}`,
			`{"Action":"fail",@,"Elapsed":2}`,
		), `
--- FAIL: a TestA/x
    a_test.go:9: got 1


--- FAIL: a TestA

FAIL  a                                    2.0 s

0 tests passed, 2 failed, 0 skipped; 0 packages have none
  failed   a TestA/x
  failed   a TestA
`, false},
		{"panicked", ev(
			`{"Action":"run",@,"Test":"TestA"}`,
			`{"Action":"output",@,"Test":"TestA","Output":"panic: BUG\n"}`,
			`{"Action":"output",@,"Output":"FAIL\ta\t0.1s\n"}`,
			`{"Action":"fail",@,"Elapsed":0.1}`,
		), `
--- FAIL: a TestA
panic: BUG


--- FAIL: a
FAIL	a	0.1s

FAIL  a                                    0.1 s

0 tests passed, 2 failed, 0 skipped; 0 packages have none
  failed   a TestA
  failed   a
`, false},
		{"not built", ev(
			`{"ImportPath":"github.com/vitgen/vitgen/a","Action":"build-output","Output":"a.go:3:1: undefined: x\n"}`,
			`{"ImportPath":"github.com/vitgen/vitgen/a","Action":"build-fail"}`,
			`{"Action":"start",@}`,
			`{"Action":"output",@,"Output":"FAIL\ta [build failed]\n"}`,
			`{"Action":"fail",@,"Elapsed":0,"FailedBuild":"github.com/vitgen/vitgen/a"}`,
		), `
--- FAIL: a
a.go:3:1: undefined: x

FAIL  a                                    0.0 s

0 tests passed, 1 failed, 0 skipped; 0 packages have none
  failed   a
`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := report(strings.NewReader(c.in), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != c.ok {
				t.Errorf("ok is %v", ok)
			}
			if diff := cmp.Diff(c.want, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Without events nothing was tested, which is no success.
func TestReportNothing(t *testing.T) {
	for _, in := range []string{"", "go: cannot find main module\n"} {
		if ok, err := report(strings.NewReader(in), new(strings.Builder)); ok || err == nil {
			t.Errorf("%q passes", in)
		}
	}
}
