using System;
using System.IO;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Threading.Tasks;

/// <summary>Hands a signal to the agent on this device. Only .NET is needed.</summary>
public static class Handoff
{
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(10); // the agent answers at once

    // A request to this machine goes through no proxy.
    private static readonly HttpClient Http = new HttpClient(new HttpClientHandler { UseProxy = false }) { Timeout = Timeout };

    /// <summary>
    /// Returns whether the agent accepts, and its answer in JSON: {"accepted":true} or
    /// {"code","message"}. It never throws, so that a method always gets an answer.
    /// </summary>
    /// <param name="address">unix:PATH or http:HOST:PORT, as the agent's AGENT_HANDOFF;
    /// http: needs AGENT_HANDOFF_TOKEN_FILE, too</param>
    /// <param name="signal">the JSON text that came from the hub</param>
    public static async Task<(bool Accepted, string Answer)> SendAsync(string address, string signal)
    {
        try
        {
            string answer = address.StartsWith("http:")
                ? await ByHttpAsync(address.Substring(5), signal)
                : await ByUnixAsync(address.Substring(5), signal);
            using (JsonDocument json = JsonDocument.Parse(answer))
            {
                JsonElement value;
                if (json.RootElement.TryGetProperty("accepted", out value)) return (value.GetBoolean(), answer);
                if (json.RootElement.TryGetProperty("code", out value)) return (false, answer);
            }
            throw new InvalidDataException("the answer is not an agent's");
        }
        catch (Exception e)
        {
            string text = JsonSerializer.Serialize("hand over to " + address + ": " + e.Message);
            return (false, "{\"code\":\"agent_unreachable\",\"message\":" + text + "}");
        }
    }

    private static async Task<string> ByUnixAsync(string path, string signal)
    {
        using (var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            Task<string> talk = TalkAsync(socket, path, signal);
            if (await Task.WhenAny(talk, Task.Delay(Timeout)) != talk) throw new TimeoutException("no answer");
            return await talk;
        }
    }

    private static async Task<string> TalkAsync(Socket socket, string path, string signal)
    {
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path));
        using (var stream = new NetworkStream(socket))
        {
            byte[] line = Encoding.UTF8.GetBytes(signal + "\n");
            await stream.WriteAsync(line, 0, line.Length);
            using (var reader = new StreamReader(stream, Encoding.UTF8))
            {
                string answer = await reader.ReadLineAsync();
                if (answer == null) throw new IOException("closed without an answer");
                return answer;
            }
        }
    }

    private static async Task<string> ByHttpAsync(string host, string signal)
    {
        string token = File.ReadAllText(Environment.GetEnvironmentVariable("AGENT_HANDOFF_TOKEN_FILE")).Trim();
        using (var request = new HttpRequestMessage(HttpMethod.Post, "http://" + host + "/signal"))
        {
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
            request.Content = new StringContent(signal, Encoding.UTF8, "application/json");
            using (HttpResponseMessage response = await Http.SendAsync(request))
            {
                return await response.Content.ReadAsStringAsync(); // any status has an answer
            }
        }
    }
}
