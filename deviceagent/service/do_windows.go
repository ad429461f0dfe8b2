package service

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

// chown leaves it to windowsACL.
func chown(string, int, int) error { return nil }

// Privileged says whether this process may install services.
func Privileged() bool { return windows.GetCurrentProcessToken().IsElevated() }

const (
	stopTime   = 30 * time.Second // for the service to end
	stopPoll   = 200 * time.Millisecond
	restartIn  = 10 * time.Second
	forgetting = 24 * 60 * 60 // s, of failures
)

func (s *windowsService) do(*Machine) (string, error) {
	m, err := mgr.Connect()
	if err != nil {
		return "", fmt.Errorf("connect to the service manager: %w", err)
	}
	defer m.Disconnect()
	if s.halt || s.gone {
		return s.stopOrRemove(m)
	}
	c := mgr.Config{
		ServiceType: windows.SERVICE_WIN32_OWN_PROCESS, StartType: mgr.StartAutomatic, DelayedAutoStart: true, ErrorControl: mgr.ErrorNormal,
		BinaryPathName: s.commandLine(), ServiceStartName: s.user, DisplayName: windowsDisplay, Description: windowsDescription,
		SidType: windows.SERVICE_SID_TYPE_UNRESTRICTED,
	}
	service, err := m.OpenService(Name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		// CreateService quotes its arguments itself; UpdateConfig then sets the line as shown.
		service, err = m.CreateService(Name, s.program, c)
	}
	if err != nil {
		return "", err
	}
	defer service.Close()
	if err := service.UpdateConfig(c); err != nil {
		return "", err
	}
	again := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: restartIn}
	if err := service.SetRecoveryActions([]mgr.RecoveryAction{again, again, again}, forgetting); err != nil {
		return "", fmt.Errorf("set what follows a failure: %w", err)
	}
	if err := service.SetRecoveryActionsOnNonCrashFailures(true); err != nil {
		return "", fmt.Errorf("set what follows a failure: %w", err)
	}
	// There already after an earlier installation.
	if err := eventlog.InstallAsEventCreate(Name, eventlog.Error|eventlog.Warning|eventlog.Info); err != nil && !eventSourceThere(err) {
		return "", fmt.Errorf("make the event log's source: %w", err)
	}
	if !s.start {
		return did, nil
	}
	if err := stop(service); err != nil {
		return "", err
	}
	return did, service.Start()
}

// eventSourceThere: package eventlog has no sentinel for it.
func eventSourceThere(err error) bool {
	return strings.HasSuffix(err.Error(), "registry key already exists")
}

func (s *windowsService) stopOrRemove(m *mgr.Mgr) (string, error) {
	service, err := m.OpenService(Name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return unchanged, nil
	}
	if err != nil {
		return "", err
	}
	defer service.Close()
	if err := stop(service); err != nil {
		return "", err
	}
	if s.halt {
		return did, nil
	}
	if err := service.Delete(); err != nil {
		return "", err
	}
	if err := eventlog.Remove(Name); err != nil && !errors.Is(err, windows.ERROR_FILE_NOT_FOUND) {
		return "", fmt.Errorf("remove the event log's source: %w", err)
	}
	return did, nil
}

// stop stops a service that runs, and waits for its end.
func stop(service *mgr.Service) error {
	status, err := service.Query()
	if err != nil || status.State == svc.Stopped {
		return err
	}
	if _, err := service.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return fmt.Errorf("stop the service: %w", err)
	}
	for latest := time.Now().Add(stopTime); time.Now().Before(latest); time.Sleep(stopPoll) { // the manager has no way to wait
		if status, err = service.Query(); err != nil || status.State == svc.Stopped {
			return err
		}
	}
	return fmt.Errorf("the service did not stop within %v", stopTime)
}

func (s *windowsACL) do(*Machine) (string, error) {
	sid, _, _, err := windows.LookupSID("", s.user)
	if err != nil {
		return "", fmt.Errorf("account %s: %w", s.user, err)
	}
	rights, inherit := "FR", "" // file, read
	if s.writable {
		rights, inherit = "0x1301bf", "OICI" // modify, also what will be in it
	}
	// P: nothing of the parent's, which lets all users read.
	sd, err := windows.SecurityDescriptorFromString(fmt.Sprintf("D:P(A;%[1]s;FA;;;SY)(A;%[1]s;FA;;;BA)(A;%[1]s;%[2]s;;;%[3]s)", inherit, rights, sid))
	if err != nil {
		return "", err
	}
	acl, _, err := sd.DACL()
	if err != nil {
		return "", err
	}
	return did, windows.SetNamedSecurityInfo(s.path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, acl, nil)
}
