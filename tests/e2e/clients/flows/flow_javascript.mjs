// The flow of the AWS SDK for JavaScript v3: commands, waiters and paginators. Called as steps.py says.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages live outside the checkout; imports of ES modules know no search path.
const require = createRequire(pathToFileURL(process.env.CLIENT_MODULES + "/"));
const ec2Package = require("@aws-sdk/client-ec2");
const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
const { EC2Client, paginateDescribeImages, paginateDescribeInstances } = ec2Package;

const ec2 = new EC2Client({});
const send = (name, input = {}) => ec2.send(new ec2Package[`${name}Command`](input));
const quick = { client: ec2, minDelay: 1, maxDelay: 2, maxWaitTime: 600 };

async function all(pages, pick) {
  const found = [];
  for await (const page of pages) found.push(...pick(page));
  return found;
}

async function addressOf(id) {
  const { Reservations } = await send("DescribeInstances", { InstanceIds: [id] });
  return Reservations[0].Instances[0].PublicIpAddress;
}

const steps = {
  async look({ image }) {
    const Filters = [{ Name: "name", Values: [image] }];
    const images = await all(paginateDescribeImages({ client: ec2, pageSize: 5 }, { Filters }), (page) => page.Images);
    return {
      regions: (await send("DescribeRegions")).Regions.map((one) => one.RegionName),
      zones: (await send("DescribeAvailabilityZones")).AvailabilityZones.map((one) => one.ZoneName),
      images: Object.fromEntries(images.map((one) => [one.Name, one.ImageId])),
      account: (await new STSClient({}).send(new GetCallerIdentityCommand({}))).Account,
    };
  },

  async refusal() {
    try {
      await send("DescribeInstances", { InstanceIds: ["i-00000000000000000"] });
    } catch (error) {
      return error.name;
    }
  },

  async launch({ image, type, zone, name, key, user_data }) {
    const { KeyMaterial } = await send("CreateKeyPair", { KeyName: key, KeyType: "ed25519" });
    const { Instances } = await send("RunInstances", {
      ImageId: image,
      InstanceType: type,
      MinCount: 1,
      MaxCount: 1,
      KeyName: key,
      UserData: Buffer.from(user_data).toString("base64"),
      Placement: { AvailabilityZone: zone },
      TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: name }] }],
    });
    const id = Instances[0].InstanceId;
    await ec2Package.waitUntilInstanceRunning(quick, { InstanceIds: [id] });
    return { id, address: await addressOf(id), private_key: KeyMaterial };
  },

  async find({ tag, value }) {
    const Filters = [{ Name: `tag:${tag}`, Values: [value] }];
    const pages = paginateDescribeInstances({ client: ec2, pageSize: 5 }, { Filters });
    const reservations = await all(pages, (page) => page.Reservations);
    return reservations.flatMap((each) => each.Instances.map((one) => one.InstanceId));
  },

  async tag({ id, tag, value }) {
    await send("CreateTags", { Resources: [id], Tags: [{ Key: tag, Value: value }] });
  },

  async stop({ id }) {
    await send("StopInstances", { InstanceIds: [id] });
    await ec2Package.waitUntilInstanceStopped(quick, { InstanceIds: [id] });
  },

  async start({ id }) {
    await send("StartInstances", { InstanceIds: [id] });
    await ec2Package.waitUntilInstanceRunning(quick, { InstanceIds: [id] });
    return addressOf(id);
  },

  async console({ id }) {
    const { Output } = await send("GetConsoleOutput", { InstanceId: id, Latest: true });
    return Buffer.from(Output, "base64").toString();
  },

  async terminate({ id, key }) {
    await send("TerminateInstances", { InstanceIds: [id] });
    await ec2Package.waitUntilInstanceTerminated(quick, { InstanceIds: [id] });
    await send("DeleteKeyPair", { KeyName: key });
  },
};

console.log(JSON.stringify((await steps[process.argv[2]](JSON.parse(process.argv[3]))) ?? null));
