package relay_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"websocketbridge/relay"
	"websocketbridge/relay/wire"
	"websocketbridge/test/netfault"
)

// reading keeps a side alive: its pongs go out only while it reads pings.
func reading(c io.Reader) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		done <- err
	}()
	return done
}

func TestCaps(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*relay.Config)
		code   wire.Code
		after  time.Duration
	}{
		{"idle", func(c *relay.Config) { c.Idle = 5 * time.Minute }, wire.IdleTimeout, 5 * time.Minute},
		{"longest life", func(c *relay.Config) { c.MaxDuration = 2 * time.Hour }, wire.MaxDuration, 2 * time.Hour},
		{"longest life by default", nil, wire.MaxDuration, 12 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, tt.change, func(n *node) {
				began := time.Now()
				requester, device := n.open("deviceId=d")
				atDevice := reading(device)
				wantClose(t, requester, wire.ClosePolicy, tt.code)
				if took := time.Since(began); took != tt.after {
					t.Errorf("after %v, want %v", took, tt.after)
				}
				if err := <-atDevice; !strings.Contains(err.Error(), string(tt.code)) {
					t.Errorf("the device heard %v", err)
				}
				device.Close()
				synctest.Wait()
				if !strings.Contains(n.log.String(), "reason="+string(tt.code)+" by=relay") {
					t.Errorf("log:\n%s", n.log)
				}
			})
		})
	}
}

func TestMaxBytes(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.MaxBytes = 1000 }, func(n *node) {
		requester, device := n.open("deviceId=d")
		atDevice := reading(device)
		requester.Write(make([]byte, 1000)) // as many as are allowed
		go device.Write([]byte("one too many"))
		wantClose(t, requester, wire.ClosePolicy, wire.MaxBytes)
		<-atDevice
		device.Close()
	})
}

// A bridge whose both sides read lives on in silence; one whose device has gone
// silent ends.
func TestPingAndDeath(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		requester, device := n.open("deviceId=d")
		atRequester, atDevice := reading(requester), reading(device)
		time.Sleep(3 * time.Hour) // the bubble's clock
		select {
		case err := <-atRequester:
			t.Fatalf("ended: %v", err)
		default:
		}
		n.ln.Last().Mute() // the network swallows whatever the device says
		began := time.Now()
		err := <-atRequester
		if !strings.Contains(err.Error(), "peer_dead") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took < 20*second || took > 35*second {
			t.Errorf("noticed after %v", took)
		}
		requester.Close()
		device.CloseNow()
		<-atDevice
	})
}

func TestSidesVanish(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		requester, device := n.open("deviceId=d")
		device.CloseNow()
		wantClose(t, requester, wire.CloseGoingAway, wire.PeerLost)
		requester, device = n.open("deviceId=d")
		requester.CloseNow()
		wantClose(t, device, wire.CloseGoingAway, wire.PeerLost)
		synctest.Wait()
		if log := n.log.String(); !strings.Contains(log, "by=device") || !strings.Contains(log, "by=requester") {
			t.Errorf("log:\n%s", log)
		}
	})
}

func ready(n *node) int {
	w := httptest.NewRecorder()
	n.srv.AdminHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, wire.PathReadyz, nil))
	return w.Code
}

func TestDrain(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Drain = 10 * time.Minute }, func(n *node) {
		if got := ready(n); got != 200 {
			t.Errorf("readyz %d", got)
		}
		quick, quickDevice := n.open("deviceId=quick")
		slow, slowDevice := n.open("deviceId=slow")
		waits := n.connecting(context.Background(), "deviceId=waits")
		s := <-n.signals
		began := time.Now()
		n.stop()
		synctest.Wait()
		if got := ready(n); got != http.StatusServiceUnavailable {
			t.Errorf("readyz %d while draining", got)
		}
		_, err := n.connect(context.Background(), "deviceId=new")
		wantStatus(t, err, http.StatusServiceUnavailable, wire.Draining)
		echo(t, quick, quickDevice)

		// One that was waiting may still be joined.
		late, err := n.accept(s)
		if err != nil {
			t.Fatal(err)
		}
		got := <-waits
		echo(t, got.conn, late)
		for _, c := range []io.Closer{quick, late} {
			go c.Close()
		}
		wantClose(t, quickDevice, wire.CloseNormal, "")
		wantClose(t, got.conn, wire.CloseNormal, "")

		atDevice := reading(slowDevice)
		wantClose(t, slow, wire.CloseRestart, wire.Draining)
		if took := time.Since(began); took != 10*time.Minute {
			t.Errorf("the drain took %v", took)
		}
		<-atDevice
		slowDevice.Close()
	})
}

// A drain ends as soon as the last bridge has.
func TestDrainEndsEarly(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Drain = time.Hour }, func(n *node) {
		requester, device := n.open("deviceId=d")
		began := time.Now()
		n.stop()
		time.Sleep(second)
		go requester.Close()
		wantClose(t, device, wire.CloseNormal, "")
		n.stopped <- <-n.stopped
		if took := time.Since(began); took > 2*second {
			t.Errorf("took %v", took)
		}
	})
}

func TestKillEndsDrain(t *testing.T) {
	inBubble(t, func(c *relay.Config) { c.Drain = time.Hour }, func(n *node) {
		requester, device := n.open("deviceId=d")
		waits := n.connecting(context.Background(), "deviceId=waits")
		<-n.signals
		n.stop()
		synctest.Wait()
		n.srv.Kill()
		wantStatus(t, (<-waits).err, http.StatusServiceUnavailable, wire.Draining)
		atDevice := reading(device)
		wantClose(t, requester, wire.CloseRestart, wire.Draining)
		<-atDevice
		device.Close()
	})
}

func TestLogLines(t *testing.T) {
	inBubble(t, nil, func(n *node) {
		requester, device := n.open("deviceId=pump-7&target=ssh&requestData=payload")
		echo(t, requester, device)
		go requester.CloseWith(4000, "enough")
		wantClose(t, device, 4000, "")
		synctest.Wait()
		log := n.log.String()
		if strings.Count(log, "bridge open") != 1 || strings.Count(log, "bridge closed") != 1 || strings.Count(log, "\n") != 2 {
			t.Errorf("want one line each:\n%s", log)
		}
		for _, want := range []string{"device=pump-7", "principal=anonymous", "target=ssh", "reason=done", "by=requester", "close=4000", "text=enough", "to_device_bytes=5", "to_requester_bytes=0"} {
			if !strings.Contains(log, want) {
				t.Errorf("%s is missing:\n%s", want, log)
			}
		}
		if strings.Contains(log, "payload") {
			t.Errorf("request data is logged:\n%s", log)
		}
	})
}

func TestConfigFaultsAtOnce(t *testing.T) {
	_, err := relay.New(relay.Config{PublicURL: "https://x", DialBack: time.Hour, Ping: time.Minute, Dead: time.Second, Idle: -1, MaxBytes: -1, MaxBridges: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"PublicURL", "Signaler", "Keys", "Auth", "DialBack", "Dead", "Idle", "MaxBytes", "MaxBridges"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in %v", want, err)
		}
	}
}

func TestListenerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := netfault.NewListener()
		ln.Close()
		srv, err := relay.New(relay.Config{PublicURL: "ws://x", Signaler: signalFunc(nil), Keys: mustRing(t), Auth: authFunc(nil)})
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Run(context.Background(), relay.Listeners{Public: ln}); err == nil || errors.Is(err, http.ErrServerClosed) {
			t.Errorf("got %v", err)
		}
	})
}
