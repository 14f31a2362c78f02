package spec

import (
	"fmt"
	"go/token"
	"strings"
)

// Words that make trouble as the name of a package, of its directory, or of the
// file <name>.go in it.
var (
	predeclared = words(`any append bool byte cap clear close comparable complex complex64 complex128 copy
		delete error false float32 float64 imag int int8 int16 int32 int64 iota len make max min new nil
		panic print println real recover rune string true uint uint8 uint16 uint32 uint64 uintptr`)
	imported = words(`bytes context embed encoding errors flag fmt io json log math os rand runtime sort
		strconv strings sync time unsafe`)
	ownFiles = words(`step kernels cpu cuda cpu_plain cpu_avx2 cpu_avx512 step_cuda trainer`)
	// Go gives files named …_<word>.go a meaning of their own.
	fileSuffix = words(`test aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd
		plan9 solaris wasip1 windows zos 386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle mips64
		mips64le mips64p32 mips64p32le ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm unix`)
)

func words(text string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(text) {
		set[w] = true
	}
	return set
}

// badPackageName says why a well-formed name will not do, or "".
func badPackageName(name string) string {
	last := name[strings.LastIndexByte(name, '_')+1:]
	switch {
	case name == "main" || name == "init":
		return "Go gives it a meaning of its own"
	case name == "vendor" || name == "internal" || name == "testdata":
		return "Go treats directories of that name in its own way"
	case token.IsKeyword(name):
		return "it is a Go keyword"
	case predeclared[name]:
		return "it is a predeclared Go identifier"
	case imported[name]:
		return "generated code imports a package of that name"
	case ownFiles[name]:
		return "generated packages have a file of that name"
	case last != name && fileSuffix[last]:
		return fmt.Sprintf("Go reads a file name that ends in _%s.go in its own way", last)
	}
	return ""
}
