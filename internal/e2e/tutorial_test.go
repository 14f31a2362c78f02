package e2e

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestTutorial does what docs/TUTORIAL.md tells a newcomer to do, in a copy of
// the repository, and holds what is printed to what the page shows.
//
// A fenced block ```yaml NAME is a file to write. In a ```console block, a line
// that begins with "$ " is a command for bash; with & at its end it goes on in
// the background, until the end of the tutorial, where SIGTERM must end it with
// status 0. A line ^C interrupts the command above it once it has printed the
// lines between. All other lines must be printed, in that order, with other
// lines between them if need be: "…" stands for anything, and any number for any
// number.
func TestTutorial(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model; it takes a minute or two")
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "TUTORIAL.md"))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := parseTutorial(string(text))
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	dir := copyRepository(t)
	for _, s := range steps {
		switch {
		case s.file != "":
			if err := os.WriteFile(filepath.Join(dir, s.file), []byte(strings.Join(s.lines, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			s.run(t, dir)
			commands++
		}
	}
	if commands < 10 {
		t.Errorf("the tutorial has only %d commands", commands)
	}
}

// step is a file to write, or a command with what it prints.
type step struct {
	line       int    // of TUTORIAL.md
	file       string // to write lines to
	command    string
	background bool
	lines      []string // expected
	interrupt  int      // ^C stands before this line; -1: nowhere
}

func parseTutorial(text string) ([]*step, error) {
	var steps []*step
	var at *step // that lines are added to; nil: outside of blocks
	block := ""
	for i, l := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(l, "```")
		switch {
		case isFence && block == "":
			if block = fence; block == "" {
				return nil, fmt.Errorf("TUTORIAL.md:%d: a block without a language", i+1)
			}
			if name, ok := strings.CutPrefix(fence, "yaml "); ok {
				at = &step{line: i + 1, file: name}
				steps = append(steps, at)
			}
		case isFence:
			block, at = "", nil
		case block == "console" && strings.HasPrefix(l, "$ "):
			command, background := strings.CutSuffix(strings.TrimPrefix(l, "$ "), " &")
			at = &step{line: i + 1, command: command, background: background, interrupt: -1}
			steps = append(steps, at)
		case block == "console" && at == nil:
			return nil, fmt.Errorf("TUTORIAL.md:%d: output without a command", i+1)
		case block == "console" && l == "^C":
			at.interrupt = len(at.lines)
		case at != nil:
			at.lines = append(at.lines, l)
		}
	}
	return steps, nil
}

// patience is how long a command may take, and how long a line may be waited for.
const patience = 5 * time.Minute

// run runs a command and checks its output and that it succeeds.
func (s *step) run(t *testing.T, dir string) {
	t.Helper()
	t.Logf("TUTORIAL.md:%d: $ %s", s.line, s.command)
	cmd := exec.Command("bash", "-c", s.command)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell does, so that ^C reaches all of it
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out := follow(r)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	signal := func(sig syscall.Signal) { _ = syscall.Kill(-cmd.Process.Pid, sig) }
	finish := func() {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("TUTORIAL.md:%d: $ %s: %v\n%s", s.line, s.command, err, out.text())
			}
		case <-time.After(patience):
			signal(syscall.SIGKILL)
			t.Errorf("TUTORIAL.md:%d: $ %s does not end\n%s", s.line, s.command, out.text())
		}
	}
	fail := func(missing string) {
		signal(syscall.SIGKILL)
		t.Fatalf("TUTORIAL.md:%d: $ %s does not print\n%s\n--- but\n%s", s.line, s.command, missing, out.text())
	}
	from := 0
	for i, want := range append(s.lines, "") {
		if i == s.interrupt {
			signal(syscall.SIGINT)
		}
		if want == "" || want == "…" {
			continue
		}
		found := false
		if from, found = out.wait(pattern(want), from); !found {
			fail(want)
		}
	}
	if !s.background {
		finish()
		return
	}
	t.Cleanup(func() {
		signal(syscall.SIGTERM)
		finish()
	})
}

var number = regexp.MustCompile(`[0-9]+([.,][0-9]+)*`)

// pattern is what a line of the page matches.
func pattern(line string) *regexp.Regexp {
	var b strings.Builder
	for i, part := range strings.Split(line, "…") {
		if i > 0 {
			b.WriteString(".*")
		}
		words := strings.Fields(part)
		for j, w := range words { // numbers may be wider or narrower: so are gaps
			if j > 0 || strings.HasPrefix(part, " ") {
				b.WriteString(`\s+`)
			}
			quoted := regexp.QuoteMeta(number.ReplaceAllString(w, "\x00"))
			b.WriteString(strings.ReplaceAll(quoted, "\x00", number.String()))
		}
	}
	return regexp.MustCompile(`^\s*` + b.String() + `\s*$`)
}

// output is what a process has printed so far, by lines.
type output struct {
	mu     sync.Mutex
	more   *sync.Cond
	lines  []string
	closed bool
}

func follow(r io.Reader) *output {
	o := &output{}
	o.more = sync.NewCond(&o.mu)
	go func() {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			o.add(lines.Text(), false)
		}
		o.add("", true)
	}()
	return o
}

func (o *output) add(line string, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if closed {
		o.closed = true
	} else {
		o.lines = append(o.lines, line)
	}
	o.more.Broadcast()
}

// wait waits for a line, from number from on, and returns the number after it.
func (o *output) wait(want *regexp.Regexp, from int) (int, bool) {
	late := time.AfterFunc(patience, func() { o.add("", true) })
	defer late.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for ; from < len(o.lines); from++ {
			if want.MatchString(o.lines[from]) {
				return from + 1, true
			}
		}
		if o.closed {
			return from, false
		}
		o.more.Wait()
	}
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines, "\n")
}

// copyRepository copies what the repository holds, but for goldens and what is
// built, to a temporary folder.
func copyRepository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	skip := map[string]bool{"bin": true, "runs": true, "_build": true, "data": true, "golden": true}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		top := !strings.Contains(rel, string(filepath.Separator))
		switch {
		case top && (strings.HasPrefix(rel, ".") || skip[rel]):
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case d.IsDir():
			return os.Mkdir(filepath.Join(dir, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		return copyFile(filepath.Join(dir, rel), path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyFile(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, st.Mode().Perm())
}
