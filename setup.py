"""What setup.cfg cannot say: a wheel with the same bytes from every build, and with a bill of materials (PEP 770)."""

import json
import os
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.egg_info import egg_info

os.environ.setdefault('SOURCE_DATE_EPOCH', '1577836800')  # the time of the files in the wheel; 1 January 2020


class EggInfo(egg_info):
    """Adds ``sboms/mlpbackbones.cdx.json`` to the metadata: CycloneDX, the package and what it requires."""

    def run(self):
        super().run()
        package = self.distribution
        name, version = package.get_name(), package.get_version()
        required = [str(requirement) for requirement in package.install_requires]
        names = [re.match(r'[\w.-]+', requirement)[0] for requirement in required]
        refs = [f'pkg:pypi/{other}' for other in names]
        own = f'pkg:pypi/{name}@{version}'
        bill = {
            'bomFormat': 'CycloneDX',
            'specVersion': '1.6',
            'version': 1,
            'metadata': {
                'component': {
                    'type': 'library',
                    'bom-ref': own,
                    'name': name,
                    'version': version,
                    'licenses': [{'license': {'id': package.get_license()}}],
                    'purl': own,
                }
            },
            # Nothing is bundled. Versions are ranges, so they stand in the properties.
            'components': [
                {
                    'type': 'library',
                    'bom-ref': ref,
                    'name': other,
                    'purl': ref,
                    'scope': 'required',
                    'properties': [{'name': 'requirement', 'value': requirement}],
                }
                for other, ref, requirement in zip(names, refs, required)
            ],
            'dependencies': [{'ref': own, 'dependsOn': refs}],
        }
        path = Path(self.egg_info) / 'sboms' / f'{name}.cdx.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(bill, indent=2) + '\n')


setup(cmdclass={'egg_info': EggInfo})
