// Command cmd prints the settings with which the Go tool builds with -tags
// cuda, as shell commands, after making what they point at in the folder given:
//
//	eval "$(go run ./internal/cudaenv/cmd _build/cuda)"
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/vitgen/vitgen/internal/cudaenv"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: cmd FOLDER")
		os.Exit(2)
	}
	env, err := cudaenv.Env(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		fmt.Printf("export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
}
