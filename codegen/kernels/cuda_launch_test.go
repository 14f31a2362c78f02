package kernels

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// formula is one case: what Go computes, and the C++ expression for the same.
type formula struct {
	cxx  string
	want int64
}

func formulas() []formula {
	var all []formula
	add := func(want int64, cxx string, args ...any) {
		all = append(all, formula{fmt.Sprintf(cxx, args...), want})
	}
	blocks := func(l Launch) int64 { return int64(l.Blocks) }
	for _, rows := range []int{1, 5, 37, 128, 4736, 200000} {
		for _, cols := range []int{1, 10, 37, 100, 128, 192, 512, 1000, 1024, 1025, 3072, 9000} {
			add(blocks(PointwiseLaunch(rows, cols)), "vg_pointwise_blocks(%d, %d)", rows, cols)
			add(blocks(TokenSumLaunch(rows, cols)), "vg_token_sum_blocks(%d, %d)", rows, cols)
			add(blocks(TransposeLaunch(rows, 37, cols)), "vg_transpose_blocks(%d, 37, %d)", rows, cols)
			add(int64(TransposeLaunch(rows, cols, 9).Shared), "vg_transpose_shared(%d)", cols)
			c := ColumnSumLaunch(rows, cols)
			add(blocks(c), "vg_column_sum_blocks(%d, %d)", rows, cols)
			add(c.Workspace, "vg_column_sum_workspace(%d)", cols)
			add(int64(c.Counters), "vg_column_sum_counters(%d)", cols)
			add(blocks(RowLaunch(rows, cols)), "vg_row_blocks<%d>(%d)", cols, rows)
			g := LayerNormGradLaunch(rows, cols)
			add(blocks(g), "vg_layernorm_grad_blocks<%d>(%d)", cols, rows)
			add(g.Workspace, "vg_layernorm_grad_workspace<%d>(%d)", cols, rows)
			add(int64(g.Shared), "vg_layernorm_grad_shared<%d>()", cols)
		}
	}
	add(int64(RowLaunch(1, 1).Shared), "kRowShared")
	add(int64(ColumnSumLaunch(1, 1).Shared), "kSumShared")
	add(int64(LayerNormGradLaunch(1, 1).Counters), "kNormCounters")
	for _, n := range []int64{1, 1000, 16384, 16385, 6457872, 90000000} {
		s := SumsqLaunch(n)
		add(blocks(s), "vg_sumsq_blocks(%d)", n)
		add(s.Workspace, "vg_sumsq_workspace(%d)", n)
		add(int64(s.Shared), "kSumsqShared")
		add(int64(s.Counters), "kSumsqCounters")
		add(blocks(FlatLaunch(n)), "vg_flat_blocks(%d)", n)
	}
	add(blocks(PatchifyLaunch(128, 3, 96, 80, 16)), "vg_patchify_blocks(128, 3, 96, 80, 16)")
	add(blocks(GatherLaunch(128, 3, 96, 80)), "vg_gather_blocks(128, 3, 96, 80)")
	add(int64(GatherLaunch(1, 1, 1, 1).Shared), "kGatherShared")
	for _, t := range []string{"128, 128, 16, 3, 2, 4, 1", "64, 128, 32, 4, 2, 4, 8", "32, 64, 16, 3, 2, 4, 3"} {
		for _, math := range []string{"fp32", "bf16"} {
			elem := map[string]int{"fp32": 4, "bf16": 2}[math]
			var bm, bn, bk, stages, wm, wn, splits int
			fmt.Sscanf(t, "%d, %d, %d, %d, %d, %d, %d", &bm, &bn, &bk, &stages, &wm, &wn, &splits)
			bk = max(bk, 64/elem)
			l := GemmLaunch(bm, bn, bk, stages, splits, elem, 4736, 1000)
			tile := fmt.Sprintf("vg_gemm_tile<vg_nt, vg_math::%s, %d, %d, %d, %d, %d, %d, %d>", math, bm, bn, bk, stages, wm, wn, splits)
			add(int64(l.Blocks), "%s::blocks(4736, 1000)", tile)
			add(int64(l.Shared), "%s::shared_bytes", tile)
			add(l.Workspace, "%s::workspace_bytes(4736, 1000)", tile)
			add(int64(l.Counters), "%s::counters(4736, 1000)", tile)
		}
	}
	return append(all, attentionFormulas()...)
}

// TestCUDALaunchFormulas holds the planner's formulas to the headers'.
func TestCUDALaunchFormulas(t *testing.T) {
	cases := formulas()
	var src bytes.Buffer
	fmt.Fprint(&src, "#include \"vitgen.cuh\"\n#include <stdio.h>\nint main() {\n")
	for _, c := range cases {
		fmt.Fprintf(&src, "  printf(\"%%lld\\n\", (long long)(%s));\n", c.cxx)
	}
	fmt.Fprint(&src, "}\n")
	dir := t.TempDir()
	file, program := filepath.Join(dir, "formulas.cc"), filepath.Join(dir, "formulas")
	write(t, file, src.Bytes())
	args := []string{"-std=c++17", "-O0", "-DVG_SIM", "-I", "cuda", "-I", "../../sim/include", file, "-c", "-o", program + ".o"}
	if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		t.Fatalf("g++: %v\n%s", err, out)
	}
	link := append([]string{"-O1", "-std=c++17", program + ".o", "-o", program, "-ldl", "-lpthread"}, simRuntime(t)...)
	if out, err := exec.Command("g++", link...).CombinedOutput(); err != nil {
		t.Fatalf("g++: %v\n%s", err, out)
	}
	lines := strings.Fields(string(output(t, program)))
	if len(lines) != len(cases) {
		t.Fatalf("%d results for %d formulas", len(lines), len(cases))
	}
	for i, c := range cases {
		if got := lines[i]; got != fmt.Sprint(c.want) {
			t.Errorf("%s is %s, Go says %d", c.cxx, got, c.want)
		}
	}
}

// simRuntime lists the simulator's sources.
func simRuntime(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../sim/runtime/*.cc")
	if err != nil || len(files) == 0 {
		t.Fatalf("no simulator: %v", err)
	}
	return files
}

// attentionFormulas covers short and long sequences, pruned queries, every size
// of head class, dropout and storage.
func attentionFormulas() []formula {
	var all []formula
	add := func(want int64, cxx string, args ...any) {
		all = append(all, formula{fmt.Sprintf(cxx, args...), want})
	}
	for _, math := range []string{"fp32", "tf32", "bf16"} {
		for _, q := range [][2]int{{37, 37}, {1, 37}, {5, 5}, {197, 197}, {1, 197}, {512, 512}, {600, 600}, {2000, 2000}, {64, 300}} {
			for _, d := range []int{3, 16, 32, 64, 80, 128, 130, 256} {
				for _, dropout := range []bool{false, true} {
					s := AttentionShape{Math: math, Heads: 8, HeadDim: d, Tq: q[0], Tk: q[1], Dropout: dropout}
					l, threads := AttentionLaunch(s, 100)
					config := fmt.Sprintf("vg_attention_config<vg_math::%s, 8, %d, %d, %d, 0, %d, false, %v>", math, d, q[0], q[1], q[0], dropout)
					add(int64(threads), "%s::threads", config)
					add(int64(l.Shared), "%s::shared_bytes", config)
					add(int64(l.Blocks), "%s::blocks(100)", config)
					add(l.Workspace, "%s::workspace_bytes(100)", config)
					add(int64(l.Counters), "%s::counters(100)", config)
					for _, s.Narrow = range []bool{false, true} {
						storage := 4
						if s.Narrow {
							storage = 2
						}
						l, threads := AttentionGradLaunch(s, 100)
						config := fmt.Sprintf("vg_attention_grad_config<vg_math::%s, 8, %d, %d, %d, 0, %d, false, %v, %d>", math, d, q[0], q[1], q[0], dropout, storage)
						add(int64(threads), "%s::threads", config)
						add(int64(l.Shared), "%s::shared_bytes", config)
						add(int64(l.Blocks), "%s::blocks(100)", config)
						add(l.Workspace, "%s::workspace_bytes(100)", config)
						add(int64(l.Counters), "%s::counters(100)", config)
					}
				}
			}
		}
	}
	return all
}
