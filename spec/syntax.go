package spec

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// reportSyntax turns the YAML library's error, which has a line at best, into a
// diagnostic, looking for the usual causes itself.
func reportSyntax(r *reporter, err error) {
	if findUnquoted(r) || findUnclosed(r) || findAnchor(r, err) || findIndent(r) {
		return
	}
	var typeErr *yaml.TypeError
	if errors.As(err, &typeErr) {
		panic("BUG: decoding to a node gave a type error: " + err.Error())
	}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, found := strings.CutPrefix(msg, "line "); found {
		if num, text, found := strings.Cut(rest, ": "); found {
			if n, err := strconv.Atoi(num); err == nil {
				line, msg = n, text
			}
		}
	}
	text := r.line(line)
	indent := len(text) - len(strings.TrimLeft(text, " \t"))
	at := span{Pos{line, indent + 1}, utf8.RuneCountInString(strings.TrimSpace(text))}
	hint := "check indentation, and the quotes and brackets of this line and the ones around it"
	r.add(at, hint, "not valid YAML: "+msg)
}

// The YAML library names a line at best, often the wrong one. These scans find
// the mistakes that are made most; they run only on text it has refused, so
// being approximate costs at worst a less helpful message.

// bracket is an opening bracket or quote and where it stands.
type bracket struct {
	open rune
	at   span
}

// scanFlow reads the text as YAML does as far as quotes, comments and brackets
// go. It calls visit for each character outside of quotes and comments with the
// brackets open there, until visit says stop, and gives what is open at the end.
func scanFlow(lines []string, visit func(c rune, at span, open []bracket) (stop bool)) []bracket {
	var open []bracket
	var quote bracket
	for i, line := range lines {
		prev := ' '
		text := []rune(line)
		for j := 0; j < len(text); j++ {
			c, at := text[j], span{Pos{i + 1, j + 1}, 1}
			if quote.open != 0 {
				if quote.open == '"' && c == '\\' {
					j++
				} else if c == quote.open {
					quote.open = 0
				}
				prev = c
				continue
			}
			if c == '#' && strings.ContainsRune(" \t", prev) {
				break
			}
			starts := strings.ContainsRune(" \t[{,:", prev)
			if starts && (c == '"' || c == '\'') {
				quote = bracket{c, at}
			} else if visit(c, at, open) {
				return nil
			}
			switch c {
			case '{', '[':
				if starts || len(open) > 0 {
					open = append(open, bracket{c, at})
				}
			case '}', ']':
				if len(open) > 0 {
					open = open[:len(open)-1]
				}
			}
			prev = c
		}
	}
	if quote.open != 0 {
		return []bracket{quote}
	}
	return open
}

// findUnquoted reports a ${…} without quotes inside of {…} or […], where YAML
// takes its braces for its own.
func findUnquoted(r *reporter) bool {
	found := false
	prev := ' '
	scanFlow(r.lines, func(c rune, at span, open []bracket) bool {
		if prev == '$' && c == '{' && len(open) > 0 {
			at.Col--
			at.Len = 2
			if end := strings.IndexByte(string([]rune(r.line(at.Line))[at.Col-1:]), '}'); end > 0 {
				at.Len = end + 1
			}
			r.add(at, `write "${…}"`, "${…} inside of brackets needs quotes")
			found = true
		}
		prev = c
		return false
	})
	return found
}

// findUnclosed reports a bracket or quote that is never closed, or closed by
// the wrong kind.
func findUnclosed(r *reporter) bool {
	found := false
	closes := map[rune]rune{'}': '{', ']': '['}
	left := scanFlow(r.lines, func(c rune, at span, open []bracket) bool {
		want, isClose := closes[c]
		if !isClose || len(open) == 0 || open[len(open)-1].open == want {
			return false
		}
		last := open[len(open)-1]
		r.addNote(at, "", "this "+string(c)+" does not fit", r.note(last.at, "the open bracket is %c", last.open))
		found = true
		return true
	})
	if found || len(left) == 0 {
		return found
	}
	last := left[len(left)-1]
	r.errorf(last.at, "this %c is never closed", last.open)
	return true
}

// findAnchor reports an alias without an anchor before it.
func findAnchor(r *reporter, err error) bool {
	_, rest, found := strings.Cut(err.Error(), "unknown anchor '")
	name, _, _ := strings.Cut(rest, "'")
	if !found || name == "" {
		return false
	}
	for i, line := range r.lines {
		if j := strings.Index(line, "*"+name); j >= 0 {
			at := span{Pos{i + 1, utf8.RuneCountInString(line[:j]) + 1}, utf8.RuneCountInString(name) + 1}
			r.add(at, fmt.Sprintf("mark what it stands for with &%s, above", name), fmt.Sprintf("the alias *%s stands for nothing", name))
			return true
		}
	}
	return false
}

var (
	lineStart = regexp.MustCompile(`^ *(- +)*`)
	bareWord  = regexp.MustCompile(`^[ -]*\w+ *$`)
	oneDash   = regexp.MustCompile(`- +`)
	// wholeEntry is a key with a value on the same line: nothing may be nested
	// under it.
	wholeEntry = regexp.MustCompile(`^[^\s"'#&*!|>{\[][^"'#{\[]*: +[^\s#&*!|>]`)
)

// findIndent reports the first line that is indented as no line above it is, or
// deeper than a line that has its value already.
func findIndent(r *reporter) bool {
	inFlow := map[int]bool{}
	scanFlow(r.lines, func(_ rune, at span, open []bracket) bool {
		inFlow[at.Line] = inFlow[at.Line] || len(open) > 0 && open[0].at.Line < at.Line
		return false
	})
	levels := []int{0}
	complete := false
	for i, line := range r.lines {
		text := strings.TrimSpace(line)
		if text == "" || text[0] == '#' || inFlow[i+1] {
			continue
		}
		dashes := lineStart.FindString(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		for len(levels) > 1 && levels[len(levels)-1] > indent {
			levels = levels[:len(levels)-1]
		}
		top := levels[len(levels)-1]
		at := span{Pos{i + 1, indent + 1}, utf8.RuneCountInString(text)}
		switch {
		case indent > top && complete:
			r.add(at, fmt.Sprintf("begin it in column %d, like the keys above", top+1), "this line is indented too far")
			return true
		case indent > top && i > 0 && !opensBlock(r.lines[:i]):
			hint := ""
			if bareWord.MatchString(r.lines[i-1]) {
				hint = "does the line above lack its colon?"
			}
			r.add(at, hint, "this line is indented as no line above it is")
			return true
		case indent > top:
			levels = append(levels, indent)
		}
		for _, dash := range oneDash.FindAllStringIndex(dashes, -1) {
			levels = append(levels, dash[1]) // what stands after a dash has a level of its own
		}
		complete = wholeEntry.MatchString(line[len(dashes):])
	}
	return false
}

// opensBlock reports whether the last line with content may be followed by
// deeper ones: it ends in a colon, or goes on in a way not looked into here.
func opensBlock(lines []string) bool {
	for i := len(lines) - 1; i >= 0; i-- {
		text := strings.TrimSpace(lines[i])
		if text == "" || text[0] == '#' {
			continue
		}
		text, _, _ = strings.Cut(text, " #")
		text = strings.TrimRight(text, " ")
		return strings.HasSuffix(text, ":") || text == "-" || strings.ContainsAny(text, "|>\"'&*")
	}
	return true
}
