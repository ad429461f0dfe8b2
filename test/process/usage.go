//go:build linux

package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of utime and stime in /proc/PID/stat: USER_HZ, which is 100 on every
// architecture Linux has today.
const tick = time.Second / 100

// CPU is what all threads of the process have spent, in user and kernel. The kernel's
// work on a loopback connection counts for whoever sent.
func (p *Process) CPU() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	return parseCPU(string(b))
}

var errStat = errors.New("/proc/PID/stat is not what proc(5) says")

// statFields are those of /proc/PID/stat from the third on: the second, the program's
// name, may hold anything, parentheses too.
func statFields(stat string) []string {
	return strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
}

func parseCPU(stat string) (time.Duration, error) {
	f := statFields(stat)
	if len(f) < 13 {
		return 0, errStat
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64) // 14th of all
	kernel, err2 := strconv.ParseInt(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, errStat
	}
	return time.Duration(user+kernel) * tick, nil
}

// State is the letter that ps shows of a process.
func State(pid int) (byte, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := statFields(string(b))
	if len(f) == 0 {
		return 0, errStat
	}
	return f[0][0], nil
}

// Memory is what the process holds of the machine's, in bytes, now and at most ever.
func (p *Process) Memory() (rss, peak int64, err error) { return Memory(p.PID()) }

// Memory is the same of any process.
func Memory(pid int) (rss, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	if rss, err = parseSize(string(b), "VmRSS"); err == nil {
		peak, err = parseSize(string(b), "VmHWM")
	}
	return rss, peak, err
}

// parseSize reads a line as "VmRSS:	    1234 kB".
func parseSize(status, name string) (int64, error) {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, name+":")
		f := strings.Fields(rest)
		if !ok || len(f) != 2 || f[1] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		return n << 10, err
	}
	return 0, fmt.Errorf("/proc/PID/status has no %s: the process has ended, or is the kernel's", name)
}
