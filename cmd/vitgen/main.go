// Command vitgen compiles model specs into trainers.
//
//	vitgen compile examples/vit.yaml     write the Go package and its trainer
//	vitgen build examples/vit.yaml       compile, then build the trainer binary
//	vitgen build examples/vit.yaml --target cpu,cuda
//	                                     the same, for CUDA devices too
//	vitgen check examples/vit.yaml       only look for mistakes
//	vitgen schema                        print the JSON Schema of specs
//	vitgen passes                        list the compiler's passes
//
// This package holds flags and wiring, nothing else.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/vitgen/vitgen/codegen"
	"github.com/vitgen/vitgen/passes"
	"github.com/vitgen/vitgen/spec"
)

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "vitgen",
		Short:         "vitgen compiles a YAML model spec into a standalone trainer",
		Version:       codegen.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; %s --help lists the flags", err, c.CommandPath())
	})
	cmd.AddCommand(compileCommand(), buildCommand(), checkCommand(), schemaCommand(), passesCommand())
	return cmd
}

// usage adds what a command takes to the error about its arguments.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w; usage: %s", err, cmd.UseLine())
		}
		return nil
	}
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check SPEC…",
		Short: "look for mistakes in specs",
		Args:  usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, file := range args {
				s, err := readSpec(file)
				if err != nil {
					return err
				}
				elems := 0
				for _, p := range s.Params() {
					elems += product(p.Shape)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %d parameters\n", file, s.Name, elems)
			}
			return nil
		},
	}
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "print the JSON Schema of specs, for editors",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(spec.Schema())
			return err
		},
	}
}

func passesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "passes",
		Short: "list the compiler's passes in order",
		Args:  usage(cobra.NoArgs),
		Run: func(cmd *cobra.Command, _ []string) {
			for _, p := range passes.Passes() {
				optional := ""
				if p.Optional {
					optional = "  (can be disabled)"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-18s %s%s\n", p.Name, p.Doc, optional)
				for _, a := range p.After {
					fmt.Fprintf(cmd.OutOrStdout(), "%-18s   after %s: %s\n", "", a.Pass, a.Reason)
				}
			}
		},
	}
}

func product(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}
