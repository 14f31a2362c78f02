package measure

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Machine describes where a result was made. What a system does not tell stays
// empty.
type Machine struct {
	CPU         string   `json:"cpu"`
	CPUs        int      `json:"cpus"` // that this process may use
	ISA         []string `json:"isa"`
	MemoryBytes int64    `json:"memory_bytes"`
	OS          string   `json:"os"`
	HugePages   string   `json:"huge_pages"` // the kernel's setting
	Virtual     bool     `json:"virtual"`
	// LoadBefore is the one-minute load average when the run began; a quiet
	// machine has nearly 0.
	LoadBefore float64 `json:"load_before"`
	// StealPercent is the share of the CPUs' time that the hypervisor gave to
	// others during the run.
	StealPercent float64 `json:"steal_percent"`
}

// isaFlags are the extensions that decide which kernels run.
var isaFlags = []string{"avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve"}

// DescribeMachine describes this one.
func DescribeMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH}
	info := colonFile("/proc/cpuinfo")
	m.CPU = info["model name"]
	flags := strings.Fields(info["flags"] + " " + info["Features"])
	for _, f := range isaFlags {
		if slices.Contains(flags, f) {
			m.ISA = append(m.ISA, f)
		}
	}
	m.Virtual = slices.Contains(flags, "hypervisor")
	if kib, err := strconv.ParseInt(strings.TrimSuffix(colonFile("/proc/meminfo")["MemTotal"], " kB"), 10, 64); err == nil {
		m.MemoryBytes = kib * 1024
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.OS += ", kernel " + strings.TrimSpace(string(release))
	}
	if thp, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err == nil {
		if _, rest, ok := strings.Cut(string(thp), "["); ok {
			m.HugePages, _, _ = strings.Cut(rest, "]")
		}
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(load), " ")
		m.LoadBefore, _ = strconv.ParseFloat(first, 64)
	}
	return m
}

// colonFile reads "key : value" lines; of a key that comes again, as for each
// CPU, the first value counts. A file that is not there is empty.
func colonFile(name string) map[string]string {
	values := map[string]string{}
	f, err := os.Open(name)
	if err != nil {
		return values
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		key = strings.TrimSpace(key)
		if _, seen := values[key]; !seen {
			values[key] = strings.TrimSpace(value)
		}
	}
	return values
}

// cpuTicks are the kernel's counters over all CPUs: time in any state, and time
// stolen by the hypervisor.
func cpuTicks() (total, stolen float64) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal, then guest times that
	// user and nice already contain.
	for i := 1; i < len(fields) && i <= 8; i++ {
		n, _ := strconv.ParseFloat(fields[i], 64)
		total += n
		if i == 8 {
			stolen = n
		}
	}
	return total, stolen
}

// WatchSteal starts counting; the function it returns gives the percentage since.
func WatchSteal() func() float64 {
	total0, stolen0 := cpuTicks()
	return func() float64 {
		total, stolen := cpuTicks()
		if total <= total0 {
			return 0
		}
		return 100 * (stolen - stolen0) / (total - total0)
	}
}

// ToolVersions are those of vitgen and what builds it. Results of earlier runs, in
// the folder given, change nothing that is measured.
func ToolVersions(ctx context.Context, results string) map[string]string {
	first := func(argv ...string) string {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
		if err != nil {
			return "unknown"
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
	commit := first("git", "rev-parse", "--short=12", "HEAD")
	if dirty, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", ".", ":!"+results).Output(); err == nil && len(dirty) > 0 {
		commit += " with uncommitted changes"
	}
	return map[string]string{"vitgen": commit, "go": runtime.Version(), "g++": first("g++", "-dumpfullversion", "-dumpversion")}
}

func (m Machine) String() string {
	virtual := ""
	if m.Virtual {
		virtual = ", virtual"
	}
	return fmt.Sprintf("%s, %d CPUs%s (%s), %.0f GB; %s; huge pages: %s", m.CPU, m.CPUs, virtual,
		strings.Join(m.ISA, " "), float64(m.MemoryBytes)/1e9, m.OS, m.HugePages)
}
