package nvcc

import (
	"regexp"
	"slices"
	"strings"
)

// Resources is what a function takes, as ptxas -v tells it.
type Resources struct {
	Function    string // a kernel, or the mangled name of a function that is not inlined
	Entry       bool   // a kernel
	Registers   int    // per thread
	Stack       int    // bytes of local memory per thread
	SpillStores int    // bytes
	SpillLoads  int
	Shared      int // bytes of static shared memory
	Barriers    int
}

var (
	compilingLine  = regexp.MustCompile(`^ptxas info\s*: Compiling entry function '(\w+)' for '\w+'$`)
	propertiesLine = regexp.MustCompile(`^ptxas info\s*: Function properties for (\w+)$`)
	stackLine      = regexp.MustCompile(`^\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads$`)
	usedLine       = regexp.MustCompile(`^ptxas info\s*: Used (\d+) registers`)
	usedBarriers   = regexp.MustCompile(`\bused (\d+) barriers`)
	usedShared     = regexp.MustCompile(`\b(\d+) bytes smem`)
	// ptxas warning : …    ptxas info : (C7510) Potential Performance Loss: …
	remarkLine = regexp.MustCompile(`^ptxas .*(\bwarning\s*:|: \(C\d+\))`)
)

// parsePtxas reads the output of ptxas -v: what each function takes, sorted by
// name, and its warnings and remarks on lost performance.
func parsePtxas(log string) ([]Resources, []string) {
	byName := map[string]*Resources{}
	get := func(name string) *Resources {
		if byName[name] == nil {
			byName[name] = &Resources{Function: name}
		}
		return byName[name]
	}
	var entry, function string
	var remarks []string
	for line := range strings.Lines(log) {
		line = strings.TrimRight(line, "\r\n")
		if m := compilingLine.FindStringSubmatch(line); m != nil {
			entry = m[1]
			get(entry).Entry = true
		} else if m := propertiesLine.FindStringSubmatch(line); m != nil {
			function = m[1]
		} else if m := stackLine.FindStringSubmatch(line); m != nil {
			r := get(function)
			r.Stack, r.SpillStores, r.SpillLoads = number(m[1]), number(m[2]), number(m[3])
		} else if m := usedLine.FindStringSubmatch(line); m != nil {
			r := get(entry)
			r.Registers = number(m[1])
			r.Barriers = firstNumber(usedBarriers, line)
			r.Shared = firstNumber(usedShared, line)
		} else if remarkLine.MatchString(line) {
			remarks = append(remarks, line)
		}
	}
	var all []Resources
	for _, r := range byName {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Resources) int { return strings.Compare(a.Function, b.Function) })
	slices.Sort(remarks)
	return all, slices.Compact(remarks)
}

func firstNumber(re *regexp.Regexp, s string) int {
	if m := re.FindStringSubmatch(s); m != nil {
		return number(m[1])
	}
	return 0
}
