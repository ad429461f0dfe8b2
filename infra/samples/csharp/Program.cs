using System;
using System.Text;
using System.Threading.Tasks;
using Microsoft.Azure.Devices.Client;

/// <summary>
/// A device's program with its own connection to IoT Hub. What it does besides is its
/// own business; the bridge's signals it hands to the agent on the same device.
/// </summary>
public static class Program
{
    private static readonly string Agent =
        Environment.GetEnvironmentVariable("AGENT_HANDOFF") ?? "unix:/run/deviceagent/handoff.sock";

    public static async Task Main()
    {
        string connectionString = Environment.GetEnvironmentVariable("DEVICE_CONNECTION_STRING");
        using (DeviceClient client = DeviceClient.CreateFromConnectionString(connectionString, TransportType.Mqtt))
        {
            await client.OpenAsync();
            await client.SetMethodHandlerAsync("Bridge", OnBridgeAsync, null);
            await client.SetMethodHandlerAsync("Reboot", OnRebootAsync, null); // the program's own
            await client.SetReceiveMessageHandlerAsync(OnMessageAsync, client);
            Console.WriteLine("connected");
            var stop = new TaskCompletionSource<bool>();
            Console.CancelKeyPress += (sender, e) => { e.Cancel = true; stop.TrySetResult(true); };
            await stop.Task;
            await client.CloseAsync();
        }
    }

    // A direct method: the agent's answer is the method's.
    private static async Task<MethodResponse> OnBridgeAsync(MethodRequest request, object context)
    {
        var result = await Handoff.SendAsync(Agent, request.DataAsJson);
        return new MethodResponse(Encoding.UTF8.GetBytes(result.Answer), result.Accepted ? 200 : 409);
    }

    private static Task<MethodResponse> OnRebootAsync(MethodRequest request, object context)
    {
        return Task.FromResult(new MethodResponse(202));
    }

    // A message: a signal has the property bridge-signal, and nobody to answer.
    private static async Task OnMessageAsync(Message message, object context)
    {
        string text = Encoding.UTF8.GetString(message.GetBytes());
        if (message.Properties.ContainsKey("bridge-signal"))
        {
            var result = await Handoff.SendAsync(Agent, text);
            if (!result.Accepted) Console.Error.WriteLine("bridge refused: " + result.Answer);
        }
        else
        {
            Console.WriteLine("message: " + text); // the program's own
        }
        await ((DeviceClient)context).CompleteAsync(message);
    }
}
