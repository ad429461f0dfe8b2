// Package method signals devices with IoT Hub's direct methods, over HTTPS. It is
// a signaler.Signaler whose device answers.
//
// # Flow
//
//	POST https://{hub}/twins/{device}[/modules/{module}]/methods?api-version=2021-04-12
//	Authorization: SharedAccessSignature … or Bearer …
//	Request-Id: the bridge ID
//
//	{"methodName":"Bridge","responseTimeoutInSeconds":15,"connectTimeoutInSeconds":0,"payload":{the signal}}
//
// The hub calls the method on the device's own connection and waits. 200 means that
// the device answered, whatever it answered:
//
//	{"status":200,"payload":…}
//
// Status 0 and 2xx accept; 0 is what websocketbridge's devices say. Any other is a
// *signaler.RefusedError, of the payload's {"code","message"} where there is one, and
// of what can be made of the status where there is none. Every other HTTP status is
// the hub's own; hub.go has the table from its codes to signaler's sentinels.
//
// responseTimeoutInSeconds is what is left of the caller's deadline, but never less
// than the 5 and more than the 300 that the hub allows. The caller's context ends
// the call all the same.
//
// # Second tries
//
// There is one for each of these reasons, and only as long as the deadline allows:
//
//	404103, 404104, 400027   the device is not there, or went while it was asked. It may be
//	                         on its way back, so the second call lets the hub wait a second
//	                         for it. A device that is off costs its requester 1.5 s at most.
//	                         (The hub bills both calls. Config.AskOnce leaves the second out.)
//	401                      with a fresh token, if the source has another one
//	no connection, 503       nobody has seen the call
//	a kept connection that   the hub had closed it, most likely before the call
//	ends without a byte
//
// So a signal can reach a device twice. Package signaler allows that: the bridge token
// works once. An agent answers the second one with the code "replayed"; after a second
// try that means that the first one arrived, and counts as accepted.
//
// # Rate
//
// Config.Rate keeps the relay below the limit of the hub's tier (RateFor): a hub that
// is asked too often lets its answers grow slow for a minute or two before it refuses,
// and the applications that share the hub suffer, too. A signal waits for its turn for
// Config.MaxWait at most; if its turn would come later, or after its deadline, it fails
// at once with a *signaler.ThrottledError that says when to come back.
//
// When the hub throttles and says for how long (Retry-After, a minute at most is
// heeded), signals fail at once for that long, without asking it. They do not wait:
// requesters have people behind them, the answer tells them when to come back, and
// a crowd that waited would all call in the same moment. Where the daily quota is used
// up, the hub is asked once a minute, since somebody may have bought another unit.
//
// # Limits
//
// The hub's, from Microsoft Learn, "Understand and invoke direct methods from IoT
// Hub" and "IoT Hub quotas and throttling": 128 KB for each payload, metered in steps
// of 4 KB, which a signal stays below; 5 to 300 s for an answer, at most 300 s for a
// connection; 40 calls/s per unit of S1 and of the free tier, 120 of S2, 6,000 of S3;
// no methods in the Basic tier.
//
// # Why
//
// Why HTTP/1.1: a call takes as long as the device takes, and one lost packet would
// hold up all the calls that share an HTTP/2 connection.
//
// Why no limit on connections: 200 devices that do not answer would keep everybody
// else waiting. The relay's own limit on waiting bridges is the bound.
//
// Why 404 without a code of the hub's is not "device not found": the host name is wrong
// or a proxy answered, and nobody should be told that their device does not exist.
//
// Why the hub's and the device's words are left out if they quote the signal: the accept
// URL is a secret and errors go to the log.
package method
