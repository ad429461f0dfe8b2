//go:build linux

package processtest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"websocketbridge/test/process"
	"websocketbridge/test/process/processtest"
)

// hangEnv makes this binary a Go program that does nothing.
const hangEnv = "PROCESSTEST_HANG"

func TestMain(m *testing.M) {
	if os.Getenv(hangEnv) != "" {
		fmt.Println("hanging")
		select {}
	}
	os.Exit(m.Run())
}

// trial is a test within a test: it may fail, and then this one has what it said.
type trial struct {
	testing.TB
	failed   bool
	said     string
	cleanups []func()
}

// try runs f as a test, with its cleanups.
func try(t *testing.T, f func(t testing.TB)) *trial {
	t.Helper()
	tr := &trial{TB: t}
	tr.part(func() { f(tr) })
	for i := len(tr.cleanups) - 1; i >= 0; i-- {
		tr.part(tr.cleanups[i])
	}
	return tr
}

func (tr *trial) part(f func()) {
	defer func() {
		if r := recover(); r != nil && r != tr {
			panic(r)
		}
	}()
	f()
}

func (tr *trial) Helper()          {}
func (tr *trial) Failed() bool     { return tr.failed }
func (tr *trial) Cleanup(f func()) { tr.cleanups = append(tr.cleanups, f) }
func (tr *trial) Logf(format string, args ...any) {
	tr.said += fmt.Sprintf(format, args...) + "\n"
}

func (tr *trial) Errorf(format string, args ...any) {
	tr.failed = true
	tr.Logf(format, args...)
}

func (tr *trial) Fatalf(format string, args ...any) {
	tr.Errorf(format, args...)
	panic(tr)
}

func (tr *trial) Fatal(args ...any) { tr.Fatalf("%s", fmt.Sprint(args...)) }

// wants checks that the trial failed with these words, or, without any, passed.
func (tr *trial) wants(t *testing.T, words ...string) {
	t.Helper()
	if tr.failed != (len(words) > 0) {
		t.Errorf("failed: %t, and it said %q", tr.failed, tr.said)
	}
	for _, w := range words {
		if !strings.Contains(tr.said, w) {
			t.Errorf("no %q in %q", w, tr.said)
		}
	}
}

// soon is for what is not going to happen.
const soon = 50 * time.Millisecond

func shell(t testing.TB, script string, cfg processtest.Config) *processtest.Process {
	t.Helper()
	return processtest.Start(t, exec.Command("/bin/sh", "-c", script), cfg)
}

func TestSays(t *testing.T) {
	t.Setenv("RELAY_LISTEN", "from outside")
	p := shell(t, `read x; echo "got $x, relay=$RELAY_LISTEN"; echo twice; echo twice; echo "no luck" >&2; exit 3`, processtest.Config{})
	p.Write("this\n")
	p.Says("got this, relay=\n")
	p.SaysTimes("twice\n", 2)
	p.Says("no luck\n")
	p.Exits(1, 3)
	p.Says("got this")
	if got, want := p.Out.String(), p.String(); got != want || p.Err != p.Out {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestApart(t *testing.T) {
	p := shell(t, `echo "out"; echo "err" >&2; sleep 60`, processtest.Config{Apart: true})
	p.SaysOn(p.Out, "out\n")
	p.SaysOn(p.Err, "err\n")
	p.Says("err\n")
	if out, err := p.Out.String(), p.Err.String(); out != "out\n" || err != "err\n" || p.String() != "out\nerr\n" {
		t.Errorf("got %q and %q", out, err)
	}
	try(t, func(t testing.TB) {
		p := shell(t, "echo elsewhere >&2; sleep 60", processtest.Config{Apart: true, Patience: soon})
		p.Says("elsewhere")
		p.SaysOn(p.Out, "elsewhere")
	}).wants(t, "not within", `sh says "elsewhere"`)
}

func TestSaysWhyNot(t *testing.T) {
	try(t, func(t testing.TB) {
		shell(t, "echo no luck; exit 3", processtest.Config{}).Says("ready")
	}).wants(t, "exit status 3", `says "ready"`, "said at last:\nno luck")
	try(t, func(t testing.TB) {
		shell(t, "echo no luck; exec sleep 60", processtest.Config{Name: "him", Patience: soon}).Says("ready")
	}).wants(t, "not within 50ms: him says", "said at last:\nno luck")
	try(t, func(t testing.TB) {
		processtest.Start(t, exec.Command("/no/such/program"), processtest.Config{})
	}).wants(t, "start program: ")
}

// One that is quiet is logged if the test failed by it.
func TestQuiet(t *testing.T) {
	for _, byIt := range []bool{false, true} {
		tr := try(t, func(t testing.TB) {
			p := shell(t, "echo of no interest", processtest.Config{Quiet: true})
			p.Exits(0)
			if !byIt {
				t.Fatalf("other reasons")
			}
			p.Exits(1)
		})
		if !tr.failed || strings.Contains(tr.said, "of no interest") != byIt {
			t.Errorf("by it: %t; failed: %t, and it said %q", byIt, tr.failed, tr.said)
		}
	}
}

func TestEvents(t *testing.T) {
	p := shell(t, `echo '{"event":"up","n":"1"}'; echo no JSON; echo '["up"]'; read x; echo '{"event":"lost"}'; echo '{"event":"up","n":"2"}' >&2; printf '{"event":"up"}'; sleep 60`, processtest.Config{Apart: true})
	first := p.Event("up", 1)
	between := time.Now()
	p.Write("go on\n")
	second := p.Event("up", 2)
	if first.Text("n") != "1" || second.Text("n") != "2" || first.Text("event") != "up" || first.Text("m") != "" {
		t.Errorf("got %v and %v", first, second)
	}
	if first.At.After(between) || second.At.Before(between) {
		t.Errorf("they came at %v and %v, and one after %v", first.At, second.At, between)
	}
	p.SaysOn(p.Out, `lost"}`+"\n"+`{"event":"up"}`)
	if got := p.Events("lost", "up"); len(got) != 3 { // one has not ended
		t.Errorf("got %v", got)
	}
	if got := processtest.JSON[struct{ Event string }](p.Out); len(got) != 2 || got[1].Event != "lost" {
		t.Errorf("got %v", got)
	}
}

func TestExits(t *testing.T) {
	shell(t, "kill -9 $$", processtest.Config{}).Exits(-1)
	try(t, func(t testing.TB) { shell(t, "exit 3", processtest.Config{}).Exits(0, 4) }).wants(t, "sh exited with 3, want [0 4]")
	try(t, func(t testing.TB) { shell(t, "exec sleep 60", processtest.Config{Patience: soon}).Exits(0) }).wants(t, "sh exits")
}

func TestFails(t *testing.T) {
	const script = `echo '{"event":"error","code":"lost","detail":"it is gone"}'; exit 11`
	shell(t, script, processtest.Config{}).Fails(11, "peer_lost", "lost")
	for name, f := range map[string]func(t testing.TB){
		"other exit code": func(t testing.TB) { shell(t, script, processtest.Config{}).Fails(10, "lost") },
		"other code":      func(t testing.TB) { shell(t, script, processtest.Config{}).Fails(11, "peer_lost") },
		"twice":           func(t testing.TB) { shell(t, "("+script+");"+script, processtest.Config{}).Fails(11, "lost") },
		"no sentence": func(t testing.TB) {
			shell(t, strings.Replace(script, "it is gone", "", 1), processtest.Config{}).Fails(11, "lost")
		},
	} {
		t.Run(name, func(t *testing.T) { try(t, f).wants(t, "sh") })
	}
}

func TestLasts(t *testing.T) {
	for _, test := range []struct {
		name, script string
		ask          func(*processtest.Process) func()
		wants        []string
	}{
		{"well", `trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done`, terminate, nil},
		{"well, by its input", `echo ready; cat; exit 0`, closeInput, nil},
		{"does not heed it", `trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done`, terminate, []string{"asked to end: exit status 3"}},
		{"by itself", `echo ready`, terminate, []string{"ended by itself"}},
		{"race", `echo ready; echo "WARNING: DATA RACE"; cat`, closeInput, []string{"has a data race"}},
		{"hangs", `trap '' TERM; echo ready; exec sleep 60`, terminate, []string{"did not end within", "signal: quit"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			try(t, func(t testing.TB) {
				p := shell(t, test.script, processtest.Config{Patience: time.Second})
				p.Lasts(test.ask(p))
				p.Says("ready")
				if strings.HasPrefix(test.name, "by itself") {
					p.Exits(0)
				}
			}).wants(t, test.wants...)
		})
	}
	try(t, func(t testing.TB) { // the test asks it before its own end
		p := shell(t, "cat", processtest.Config{})
		p.Lasts(p.CloseInput)
		p.CloseInput()
		p.Exits(0)
	}).wants(t)
}

func terminate(p *processtest.Process) func()  { return p.Terminate }
func closeInput(p *processtest.Process) func() { return p.CloseInput }

// The end of the test is that of the program and its children.
func TestEnd(t *testing.T) {
	var child int
	try(t, func(t testing.TB) {
		p := shell(t, `trap '' TERM; sleep 60 & echo "child $!"; wait; wait`, processtest.Config{})
		fmt.Sscanf(p.Out.Wait(t, time.Minute, `child \d+\n`)[0], "child %d", &child)
	}).wants(t)
	processtest.Until(t, time.Minute, "the child is gone", func() bool { // whoever adopted it buries it
		state, err := process.State(child)
		return err != nil || state == 'Z'
	})
}

func TestKill(t *testing.T) {
	p := shell(t, "exec sleep 60", processtest.Config{})
	p.MustRun()
	p.Kill()
	if !p.Ended() || p.ExitCode() != -1 {
		t.Errorf("it goes on, or exited with %d", p.ExitCode())
	}
	try(t, func(tr testing.TB) { p.T = tr; p.Kill() }).wants(t, "killed to sh")
	try(t, func(tr testing.TB) { p.T = tr; p.Signal(syscall.SIGHUP) }).wants(t, "hangup to sh")
	try(t, func(tr testing.TB) { p.T = tr; p.MustRun() }).wants(t, "sh has ended")
}

func TestDump(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tr := try(t, func(tr testing.TB) {
		cmd := exec.Command(self)
		cmd.Env = processtest.BareEnv(hangEnv + "=1")
		p := processtest.Start(tr, cmd, processtest.Config{})
		p.Says("hanging")
		if dump := p.Dump(); !regexp.MustCompile(`(?m)^goroutine \d+ .*:$`).MatchString(dump) || strings.Contains(dump, "hanging") {
			t.Errorf("got %q", dump)
		}
		tr.Errorf("other reasons")
	})
	if tr.wants(t, "hanging"); strings.Contains(tr.said, "goroutine") {
		t.Errorf("the dump is logged: %q", tr.said)
	}
}

func TestUntil(t *testing.T) {
	n := 0
	processtest.Until(t, time.Minute, "it is the third time", func() bool { n++; return n == 3 })
	try(t, func(t testing.TB) {
		processtest.UntilNil(t, soon, "it works", func() error { return errors.New("out of order") })
	}).wants(t, "not within 50ms: it works: out of order")
}

func TestBinaries(t *testing.T) {
	b := processtest.NewBinaries("websocketbridge/no/such/package")
	for range 2 {
		try(t, func(t testing.TB) { b.Path(t, "package") }).wants(t, "websocketbridge/no/such/package")
	}
}
