package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

const tableHead = `# What the CUDA kernels take

Registers, shared memory and occupancy of every example's kernels as nvcc %s compiles
them. No kernel may spill registers, and every block must fit on every chip;
` + "`make check-cuda`" + ` checks both and compares with this file.
` + "`VITGEN_UPDATE=1 make check-cuda`" + ` writes it; never edit it.

*shared* is bytes per block, *stack* bytes of local memory per thread. Under each chip:
registers per thread, blocks resident on a multiprocessor, and the share of its warps
that they fill. The number of blocks is what threads, registers and shared memory
allow at once ([arch.go](../../internal/nvcc/arch.go) has the formula).
`

// render prints the table.
func render(all []example, archs []string, version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, tableHead, version)
	for _, e := range all {
		fmt.Fprintf(&b, "\n## %s\n\n| kernel | for | grid | threads | shared |", e.name)
		for _, a := range archs {
			fmt.Fprintf(&b, " %s |", a)
		}
		b.WriteString(" stack | spills |\n|---|---|---:|---:|---:|" + strings.Repeat("---:|", len(archs)) + "---:|---:|\n")
		for _, k := range e.kernels {
			b.WriteString(k.row())
		}
	}
	return b.String()
}

func (k *kernel) row() string {
	var b strings.Builder
	shared, stack, spills := k.Shared, 0, 0
	for _, u := range k.uses {
		shared = max(shared, u.shared)
		stack = max(stack, u.Stack)
		spills = max(spills, u.SpillStores+u.SpillLoads)
	}
	fmt.Fprintf(&b, "| %s | %s | %d | %d | %d |", k.Name, k.Origin, k.Grid, k.Block, shared)
	for _, u := range k.uses {
		fmt.Fprintf(&b, " %d · %d · %.0f %% |", u.Registers, u.blocks, 100*u.occupancy)
	}
	fmt.Fprintf(&b, " %d | %d |\n", stack, spills)
	return b.String()
}

var tableVersion = regexp.MustCompile(`as nvcc (\S+) compiles`)

// compareTable compares the table with the committed one, or writes it if
// VITGEN_UPDATE is 1. Other versions of nvcc give other numbers, which says
// nothing of the kernels.
func compareTable(file, table string, out io.Writer) (faults []string, err error) {
	if os.Getenv("VITGEN_UPDATE") == "1" {
		if err := os.WriteFile(file, []byte(table), 0o666); err != nil {
			return nil, err
		}
		fmt.Fprintln(out, "wrote", file)
		return nil, nil
	}
	old, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return []string{file + " is missing; VITGEN_UPDATE=1 make check-cuda writes it"}, nil
	} else if err != nil {
		return nil, err
	}
	is, was := versionOf(table), versionOf(string(old))
	if is != was {
		fmt.Fprintf(out, "SKIPPED: comparison with %s, which is of nvcc %s, not %s; make cuda-toolchain installs that\n", file, was, is)
		return nil, nil
	}
	changes := changedLines(string(old), table)
	if len(changes) == 0 {
		fmt.Fprintln(out, file, "is up to date")
		return nil, nil
	}
	const most = 40
	if n := len(changes) - most; n > 0 {
		changes = append(changes[:most], fmt.Sprintf("… and %d more lines", n))
	}
	return append(changes, file+" is stale; VITGEN_UPDATE=1 make check-cuda writes it, and the change is committed"), nil
}

func versionOf(table string) string {
	if m := tableVersion.FindStringSubmatch(table); m != nil {
		return m[1]
	}
	return "?"
}

// changedLines lists the lines that only one of two tables has, under their
// headings.
func changedLines(old, new string) []string {
	var changes []string
	list := func(sign, of, other string) {
		lines := sections(other)
		for _, s := range sectionLines(of) {
			if lines[s] == 0 {
				changes = append(changes, sign+" "+s)
			} else {
				lines[s]--
			}
		}
	}
	list("-", old, new)
	list("+", new, old)
	if len(changes) == 0 && old != new {
		changes = []string{"the order of the lines differs"}
	}
	return changes
}

// sectionLines are the lines of a table, rows with the name of their section.
func sectionLines(table string) []string {
	var all []string
	section := ""
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = name
		}
		if strings.HasPrefix(line, "| ") {
			line = section + " " + line
		}
		all = append(all, line)
	}
	return all
}

func sections(table string) map[string]int {
	count := map[string]int{}
	for _, line := range sectionLines(table) {
		count[line]++
	}
	return count
}
