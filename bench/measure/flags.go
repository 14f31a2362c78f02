package measure

import (
	"flag"
	"fmt"
	"strings"
)

// Parse parses flags and refuses arguments that none takes.
func Parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%s takes no argument %q", fs.Name(), fs.Arg(0))
	}
	return nil
}

// Names splits a comma-separated list.
func Names(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
